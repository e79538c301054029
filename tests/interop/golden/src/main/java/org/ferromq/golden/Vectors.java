package org.ferromq.golden;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** One file of golden vectors: blocks of `key = "value"` lines that end in a `bytes = hex` line. */
final class Vectors {
    private static final char[] HEX = "0123456789abcdef".toCharArray();

    private final String comment;
    private final List<Block> blocks = new ArrayList<>();

    Vectors(String comment) {
        this.comment = comment;
    }

    Block block(String name) {
        for (Block other : blocks) {
            if (other.name.equals(name)) {
                throw new IllegalStateException("vector " + name + " is there twice");
            }
        }
        Block block = new Block(name);
        blocks.add(block);
        return block;
    }

    /** Drops every block that `other` holds too, byte for byte; the Java package of the class does not count. Says how many went. */
    int dropSameAs(Path other) throws IOException {
        Map<String, String> known = new HashMap<>();
        String name = null;
        StringBuilder text = new StringBuilder();
        for (String line : Files.readAllLines(other)) {
            if (line.startsWith("[")) {
                name = line.substring(1, line.length() - 1);
                text.setLength(0);
            } else if (line.isEmpty() && name != null) {
                known.put(name, withoutClass(text.toString()));
                name = null;
            } else if (name != null) {
                text.append(line).append('\n');
            }
        }
        int before = blocks.size();
        blocks.removeIf(block -> withoutClass(block.text.toString()).equals(known.get(block.name)));
        return before - blocks.size();
    }

    private static String withoutClass(String text) {
        return text.replaceAll("(?m)^class = .*\n", "");
    }

    void write(Path file) throws IOException {
        StringBuilder out = new StringBuilder();
        for (String line : comment.split("\n")) {
            out.append("# ").append(line).append('\n');
        }
        out.append('\n');
        for (Block block : blocks) {
            out.append('[').append(block.name).append("]\n").append(block.text).append('\n');
        }
        Files.write(file, out.toString().getBytes(StandardCharsets.UTF_8));
        System.out.println(file.getFileName() + ": " + blocks.size() + " vectors");
    }

    static String hex(byte[] bytes) {
        StringBuilder out = new StringBuilder(bytes.length * 2);
        for (byte b : bytes) {
            out.append(HEX[(b >> 4) & 15]).append(HEX[b & 15]);
        }
        return out.toString();
    }

    /** A JSON string, so that a reader needs no quoting rules of its own. */
    static String quote(String value) {
        StringBuilder out = new StringBuilder("\"");
        for (int i = 0; i < value.length(); i++) {
            char c = value.charAt(i);
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < 0x20 || c >= 0x7f && c < 0xa0 || c == 0x2028 || c == 0x2029) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }

    static final class Block {
        private final String name;
        private final StringBuilder text = new StringBuilder();

        Block(String name) {
            this.name = name;
        }

        /** A null value is left out: an absent key says "null". */
        Block put(String key, Object value) {
            if (value != null) {
                text.append(key).append(" = ").append(quote(String.valueOf(value))).append('\n');
            }
            return this;
        }

        void bytes(byte[] bytes) {
            text.append("bytes = ").append(hex(bytes)).append('\n');
        }
    }
}
