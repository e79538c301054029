//! What RocketMQ does for its users, told without a word about who serves it: these scenarios pass against FerroMQ, and
//! with `FERROMQ_AGAINST=java` against Java's own servers (`scripts/test --against-java`), which shows that they describe
//! RocketMQ and not us.

mod administration;
mod backlog;
mod batches;
mod compressed;
mod consuming;
mod dead_letters;
mod delayed;
mod deleting;
mod filtering;
mod orders;
mod promotion;
mod request_reply;
mod running;
mod server;
mod traces;
mod transactions;
