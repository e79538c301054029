// The command line: `--name value` pairs and bare flags, each of them known by name.
package org.ferromq.interop;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

final class Options {
    private static final Set<String> FLAGS = Set.of("orderly", "broadcast", "trace", "quiet", "until-stdin-closes");
    private static final Set<String> VALUES = Set.of(
        "namesrv", "topic", "group", "instance", "poll-ms", "persist-ms", "log-dir",
        "mode", "count", "start", "size", "keys", "tag", "queue", "broker", "inflight", "timeout-ms", "batch-size",
        "retries", "fail-pause-ms", "pace-ms", "delay-level", "prop", "outcome", "check", "immunity-s",
        "from", "timestamp", "tags", "sql", "fail-first", "max-reconsume", "threads", "from-offset", "await", "show",
        "key", "unique-key", "offset-id", "max");

    private final Map<String, List<String>> given = new HashMap<>();

    /** The command line cannot be understood. */
    static final class Wrong extends Exception {
        Wrong(String message) {
            super(message);
        }
    }

    static Options parse(List<String> args) throws Wrong {
        Options options = new Options();
        for (int at = 0; at < args.size(); at++) {
            String arg = args.get(at);
            String name = arg.startsWith("--") ? arg.substring(2) : "";
            if (FLAGS.contains(name)) {
                options.add(name, "true");
            } else if (!VALUES.contains(name)) {
                throw new Wrong("unknown option " + arg);
            } else if (++at == args.size()) {
                throw new Wrong(arg + " needs a value");
            } else {
                options.add(name, args.get(at));
            }
        }
        return options;
    }

    private void add(String name, String value) {
        given.computeIfAbsent(name, unused -> new ArrayList<>()).add(value);
    }

    boolean has(String name) {
        return given.containsKey(name);
    }

    List<String> all(String name) {
        return given.getOrDefault(name, List.of());
    }

    String text(String name, String otherwise) {
        List<String> values = all(name);
        return values.isEmpty() ? otherwise : values.get(values.size() - 1);
    }

    String required(String name) throws Wrong {
        String value = text(name, null);
        if (value == null) {
            throw new Wrong("--" + name + " is missing");
        }
        return value;
    }

    long number(String name, long otherwise) throws Wrong {
        String value = text(name, null);
        if (value == null) {
            return otherwise;
        }
        try {
            return Long.parseLong(value);
        } catch (NumberFormatException notANumber) {
            throw new Wrong("--" + name + " " + value + " is not a whole number");
        }
    }

    int count(String name, int otherwise) throws Wrong {
        long value = number(name, otherwise);
        if (value < Integer.MIN_VALUE || value > Integer.MAX_VALUE) {
            throw new Wrong("--" + name + " " + value + " is too large");
        }
        return (int) value;
    }
}
