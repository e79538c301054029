// Entry point: one process runs one command with the official client and reports on standard output.
//
// The command language is in tests/interop/README.md. Standard output carries protocol lines only; whatever the
// client itself prints goes to standard error, and its log files to --log-dir.
package org.ferromq.interop;

import java.util.Arrays;

public final class Driver {
    private Driver() {
    }

    public static void main(String[] args) {
        Lines lines = new Lines(System.out);
        System.setOut(System.err);
        int code;
        try {
            if (args.length == 0) {
                throw new Options.Wrong("a command is missing");
            }
            Options options = Options.parse(Arrays.asList(args).subList(1, args.length));
            prepareClient(options);
            lines.show(options.all("show"));
            code = run(args[0], options, lines);
        } catch (Options.Wrong wrong) {
            System.err.println("driver: " + wrong.getMessage() + " (see tests/interop/README.md)");
            code = 2;
        } catch (Throwable failure) {
            failure.printStackTrace();
            lines.print("ERROR", Lines.reason(failure));
            code = 1;
        }
        // The client leaves non-daemon threads behind; every line above has been flushed.
        System.exit(code);
    }

    private static int run(String command, Options options, Lines lines) throws Exception {
        switch (command) {
            case "produce":
                Produce.run(options, lines);
                return 0;
            case "transact":
                Transact.run(options, lines);
                return 0;
            case "recall":
                Recall.run(options, lines);
                return 0;
            case "promote":
                Promote.run(options, lines);
                return 0;
            case "tally":
                Promote.tally(options, lines);
                return 0;
            case "request":
                RequestReply.request(options, lines);
                return 0;
            case "reply":
                RequestReply.reply(options, lines);
                return 0;
            case "push":
                Push.run(options, lines, message -> { });
                return 0;
            case "lite-pull":
                LitePull.run(options, lines);
                return 0;
            case "pull":
                Pull.run(options, lines);
                return 0;
            case "query":
                Lookup.query(options, lines);
                return 0;
            case "route":
                Lookup.route(options, lines);
                return 0;
            case "offsets":
                Lookup.offsets(options, lines);
                return 0;
            case "offset-at":
                Lookup.offsetAt(options, lines);
                return 0;
            default:
                throw new Options.Wrong("unknown command " + command);
        }
    }

    /** System properties that the client reads once, when its classes are loaded. */
    private static void prepareClient(Options options) {
        String logDir = options.text("log-dir", null);
        if (logDir != null) {
            System.setProperty("user.home", logDir);
            System.setProperty("rocketmq.client.localOffsetStoreDir", logDir + "/offsets");
        }
        setUnlessGiven("rocketmq.client.rebalance.waitInterval", options.text("poll-ms", "1000"));
        setUnlessGiven("rocketmq.client.rebalance.minInterval", options.text("poll-ms", "1000"));
    }

    private static void setUnlessGiven(String name, String value) {
        if (System.getProperty(name) == null) {
            System.setProperty(name, value);
        }
    }
}
