package org.ferromq.golden;

import java.nio.file.Path;
import java.nio.file.Paths;
import org.apache.rocketmq.common.MQVersion;

/** Writes the golden files of the RocketMQ version on the class path: Main GOLDEN_DIR WORK_DIR VERSION. */
public final class Main {
    private Main() {
    }

    public static void main(String[] args) {
        int code = 0;
        try {
            run(args);
        } catch (Exception e) {
            e.printStackTrace();
            code = 1;
        }
        System.exit(code); // the store leaves threads behind
    }

    private static void run(String[] args) throws Exception {
        Path golden = Paths.get(args[0]);
        Path work = Paths.get(args[1]);
        String version = args[2];
        boolean reference = version.equals("5.3.3");
        String running = MQVersion.getVersionDesc(MQVersion.CURRENT_VERSION);
        if (!running.equals("V" + version.replace('.', '_'))) {
            throw new IllegalStateException("the class path holds " + running + ", not " + version);
        }

        Frames.vectors(version).write(golden.resolve("frames-" + version + ".txt"));
        write(Headers.vectors(version), golden, "headers", version, reference);
        write(Bodies.vectors(version), golden, "bodies", version, reference);
        write(Records.vectors(version, work), golden, "records", version, reference);
        if (Flavour.hasStore()) {
            Flavour.storeFiles(golden, work, version);
        }
    }

    private static void write(Vectors vectors, Path golden, String subject, String version, boolean reference) throws Exception {
        if (!reference) {
            int same = vectors.dropSameAs(golden.resolve(subject + "-5.3.3.txt"));
            System.out.println(subject + ": " + same + " vectors of " + version + " are those of 5.3.3");
        }
        vectors.write(golden.resolve(subject + "-" + version + ".txt"));
    }
}
