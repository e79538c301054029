//! `#[derive(Header)]`: reads and writes a struct as a frame's ext fields.
//!
//! Writes `DecodeFields` (one walk over the fields, no map) and `EncodeFields` for a struct with named fields. A field
//! of type `T` is required, `Option<T>` is optional; `T` is any `FieldValue`. The wire name is the field's name in camel
//! case. Attributes:
//!
//! | on | attribute | meaning |
//! |---|---|---|
//! | field | `name = "maxMsgNums"` | the wire name, where it is not the camel case |
//! | field | `also = "removeOffset"` | a second name that is read too |
//! | field | `short = "a"` | the one-letter name; then every field needs one |
//! | field | `default` or `default = expr` | takes this value when absent; always written |
//! | struct | `strict` | an unreadable number is an error, as where Java's class has a decoder of its own; else it counts as absent |
//! | struct | `short_codes(A, B)` | requests with these codes use the short names, and are strict |

use proc_macro::TokenStream;
use quote::{format_ident, quote};
use syn::punctuated::Punctuated;
use syn::{
    Data, DeriveInput, Expr, Field, Fields, GenericArgument, LitStr, PathArguments, Token, Type, parse_macro_input,
};

#[proc_macro_derive(Header, attributes(header))]
pub fn derive_header(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// What the attributes on one field say.
struct Member<'a> {
    ident: &'a syn::Ident,
    /// The value's type, inside the `Option` if there is one.
    value: &'a Type,
    optional: bool,
    name: String,
    also: Vec<String>,
    short: Option<String>,
    default: Option<Expr>,
}

fn expand(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(syn::Error::new_spanned(input, "a header is a struct"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(syn::Error::new_spanned(input, "a header's fields have names"));
    };
    let mut short_codes = Vec::new();
    let mut strict = false;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("header")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("strict") {
                strict = true;
                return Ok(());
            }
            if !meta.path.is_ident("short_codes") {
                return Err(meta.error("expected `short_codes(…)` or `strict`"));
            }
            let codes;
            syn::parenthesized!(codes in meta.input);
            short_codes.extend(Punctuated::<Expr, Token![,]>::parse_terminated(&codes)?);
            Ok(())
        })?;
    }
    let members = fields.named.iter().map(member).collect::<syn::Result<Vec<_>>>()?;

    let ident = &input.ident;
    let decode = decode_body(ident, &members, strict, |member| {
        let mut names = vec![member.name.clone()];
        names.extend(member.also.iter().cloned());
        names
    });
    let encode = encode_body(&members, |member| member.name.clone());
    let (decode_for, short_names) =
        if short_codes.is_empty() { (quote!(), quote!()) } else { short_names(ident, &members, &short_codes)? };
    Ok(quote! {
        impl ::ferromq_protocol::DecodeFields for #ident {
            fn decode_fields(
                fields: &::ferromq_protocol::Fields,
            ) -> ::std::result::Result<Self, ::ferromq_protocol::HeaderError> {
                #decode
            }

            #decode_for
        }

        impl ::ferromq_protocol::EncodeFields for #ident {
            fn encode_fields(&self, out: &mut ::ferromq_protocol::FieldWriter<'_>) {
                #encode
            }
        }

        #short_names
    })
}

/// The override that picks names by code, and the inherent methods for the short names.
fn short_names(
    ident: &syn::Ident,
    members: &[Member<'_>],
    codes: &[Expr],
) -> syn::Result<(proc_macro2::TokenStream, proc_macro2::TokenStream)> {
    for member in members {
        if member.short.is_none() {
            return Err(syn::Error::new_spanned(
                member.ident,
                "the struct has `short_codes`, so this field needs `short = \"…\"`",
            ));
        }
    }
    let short = |member: &Member<'_>| member.short.clone().unwrap_or_default();
    let decode = decode_body(ident, members, true, |member| vec![short(member)]);
    let encode = encode_body(members, short);
    let decode_for = quote! {
        fn decode_for(
            code: i32,
            fields: &::ferromq_protocol::Fields,
        ) -> ::std::result::Result<Self, ::ferromq_protocol::HeaderError> {
            if [#(#codes),*].contains(&::ferromq_protocol::RequestCode(code)) {
                Self::decode_short_fields(fields)
            } else {
                Self::decode_fields(fields)
            }
        }
    };
    let methods = quote! {
        impl #ident {
            /// Reads the header under its one-letter names. An unreadable number is an error.
            pub fn decode_short_fields(
                fields: &::ferromq_protocol::Fields,
            ) -> ::std::result::Result<Self, ::ferromq_protocol::HeaderError> {
                #decode
            }

            /// Writes the header under its one-letter names.
            pub fn encode_short_fields(&self, out: &mut ::ferromq_protocol::FieldWriter<'_>) {
                #encode
            }
        }
    };
    Ok((decode_for, methods))
}

fn decode_body(
    header: &syn::Ident,
    members: &[Member<'_>],
    strict: bool,
    names: impl Fn(&Member<'_>) -> Vec<String>,
) -> proc_macro2::TokenStream {
    let header = header.to_string();
    let (mut slots, mut arms, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for member in members {
        let Member { ident, value, .. } = member;
        let slot = format_ident!("slot_{}", ident);
        let names = names(member);
        let name = &names[0];
        let read = if member.optional { quote!(read_optional) } else { quote!(read) };
        slots.push(quote!(let mut #slot: ::std::option::Option<#value> = None;));
        arms.push(quote! {
            #(#names)|* => #slot = ::ferromq_protocol::derive::#read(#header, #name, #strict, value)?,
        });
        values.push(match &member.default {
            Some(default) => quote!(#ident: #slot.unwrap_or_else(|| #default)),
            None if member.optional => quote!(#ident: #slot),
            None => quote!(#ident: ::ferromq_protocol::derive::required(#header, #name, #slot)?),
        });
    }
    quote! {
        #(#slots)*
        for (name, value) in fields.iter() {
            match &*name {
                #(#arms)*
                _ => {}
            }
        }
        Ok(Self { #(#values),* })
    }
}

fn encode_body(members: &[Member<'_>], name: impl Fn(&Member<'_>) -> String) -> proc_macro2::TokenStream {
    let writes = members.iter().map(|member| {
        let ident = member.ident;
        let name = name(member);
        if member.optional {
            quote! {
                if let Some(value) = &self.#ident {
                    out.field(#name, value);
                }
            }
        } else {
            quote!(out.field(#name, &self.#ident);)
        }
    });
    quote!(#(#writes)*)
}

fn member(field: &Field) -> syn::Result<Member<'_>> {
    let ident = field.ident.as_ref().ok_or_else(|| syn::Error::new_spanned(field, "a header's fields have names"))?;
    let inner = option_inner(&field.ty);
    let mut member = Member {
        ident,
        value: inner.unwrap_or(&field.ty),
        optional: inner.is_some(),
        name: camel_case(&ident.to_string()),
        also: Vec::new(),
        short: None,
        default: None,
    };
    for attribute in field.attrs.iter().filter(|attribute| attribute.path().is_ident("header")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                member.name = meta.value()?.parse::<LitStr>()?.value();
            } else if meta.path.is_ident("also") {
                member.also.push(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("short") {
                member.short = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("default") {
                member.default = Some(if meta.input.peek(Token![=]) {
                    meta.value()?.parse()?
                } else {
                    syn::parse_quote!(::std::default::Default::default())
                });
            } else {
                return Err(meta.error("expected name, also, short or default"));
            }
            Ok(())
        })?;
    }
    if member.optional && member.default.is_some() {
        return Err(syn::Error::new_spanned(field, "an Option needs no default"));
    }
    Ok(member)
}

/// `T` of `Option<T>`.
fn option_inner(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Option")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) => Some(inner),
        _ => None,
    }
}

fn camel_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, word) in name.split('_').filter(|word| !word.is_empty()).enumerate() {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if at > 0 => out.extend(first.to_uppercase()),
            Some(first) => out.push(first),
            None => {}
        }
        out.push_str(letters.as_str());
    }
    out
}
