package org.ferromq.golden;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import org.apache.rocketmq.remoting.protocol.LanguageCode;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.SerializeType;

/** Whole frames without a typed header: flags, remarks, languages, extFields, bodies. */
final class Frames {
    private Frames() {
    }

    static Vectors vectors(String version) {
        Vectors out = new Vectors("Frames of Apache RocketMQ " + version + " as NettyEncoder puts them on the wire. Made by tests/interop/golden/generate.");
        for (SerializeType type : SerializeType.values()) {
            String t = type.name().toLowerCase();
            add(out, type, t + "/request", request(105, 0));
            add(out, type, t + "/request-opaque-1", request(34, 1));
            add(out, type, t + "/request-opaque-large", request(34, Integer.MAX_VALUE));
            add(out, type, t + "/request-opaque-negative", request(34, -5));
            add(out, type, t + "/request-opaque-min", request(34, Integer.MIN_VALUE));
            add(out, type, t + "/request-code-negative", request(-1, 6));
            add(out, type, t + "/request-code-32767", request(32767, 7));

            RemotingCommand oneway = request(310, 8);
            oneway.markOnewayRPC();
            add(out, type, t + "/request-oneway", oneway);

            RemotingCommand versioned = request(10, 9);
            versioned.setVersion(32767);
            add(out, type, t + "/request-version-large", versioned);

            add(out, type, t + "/response-success", response(0, null, 10));
            add(out, type, t + "/response-remark-empty", response(0, "", 11));
            add(out, type, t + "/response-remark", response(17, "No topic route info in name server for the topic: TopicTest", 12));
            add(out, type, t + "/response-remark-quotes", response(1, "a \"quoted\" back\\slash, a / and a 'tick'", 13));
            add(out, type, t + "/response-remark-lines", response(1, "line one\nline two\r\n\ttabbed\u0000\u0001\u001f\u007f end", 14));
            add(out, type, t + "/response-remark-unicode", response(1, "主题不存在 – naïve \uD83D\uDE80 \u2028 end", 15));
            RemotingCommand odd = response(1, "flag with both bits", 16);
            odd.markOnewayRPC();
            add(out, type, t + "/response-oneway", odd);

            RemotingCommand ext = request(310, 20);
            HashMap<String, String> fields = new HashMap<>();
            fields.put("a", "producer-group");
            fields.put("b", "TopicTest");
            fields.put("queueId", "3");
            fields.put("brokerName", "broker-a");
            fields.put("offset", "9223372036854775807");
            ext.setExtFields(fields);
            add(out, type, t + "/ext", ext);

            RemotingCommand unicode = request(310, 21);
            HashMap<String, String> unicodeFields = new HashMap<>();
            unicodeFields.put("i", "KEYS\u0001k1 k2\u0002TAGS\u0001标签\u0002WAIT\u0001true\u0002");
            unicodeFields.put("ключ", "значение \uD83D\uDE80");
            unicode.setExtFields(unicodeFields);
            add(out, type, t + "/ext-unicode", unicode);

            RemotingCommand none = request(310, 22);
            none.setExtFields(new HashMap<>());
            add(out, type, t + "/ext-empty-map", none);

            RemotingCommand blank = request(310, 23);
            HashMap<String, String> blankFields = new HashMap<>();
            blankFields.put("empty", "");
            blankFields.put("full", "x");
            blank.setExtFields(blankFields);
            add(out, type, t + "/ext-empty-value", blank);

            RemotingCommand body = request(10, 24);
            body.setBody("hello".getBytes(StandardCharsets.UTF_8));
            add(out, type, t + "/body", body);

            RemotingCommand emptyBody = request(10, 25);
            emptyBody.setBody(new byte[0]);
            add(out, type, t + "/body-empty", emptyBody);

            RemotingCommand binary = response(0, "with everything", 26);
            HashMap<String, String> replyFields = new HashMap<>();
            replyFields.put("nextBeginOffset", "17");
            replyFields.put("minOffset", "0");
            replyFields.put("maxOffset", "20");
            replyFields.put("suggestWhichBrokerId", "0");
            binary.setExtFields(replyFields);
            byte[] bytes = new byte[300];
            for (int i = 0; i < bytes.length; i++) {
                bytes[i] = (byte) i;
            }
            binary.setBody(bytes);
            add(out, type, t + "/everything", binary);

            RemotingCommand large = request(10, 27);
            byte[] filler = new byte[4096];
            Arrays.fill(filler, (byte) 'x');
            large.setBody(filler);
            add(out, type, t + "/body-4096", large);

            for (LanguageCode language : LanguageCode.values()) {
                RemotingCommand spoken = request(34, 100 + language.getCode());
                spoken.setLanguage(language);
                add(out, type, t + "/language-" + language.name(), spoken);
            }
        }
        return out;
    }

    private static void add(Vectors out, SerializeType type, String name, RemotingCommand command) {
        command.setSerializeTypeCurrentRPC(type);
        byte[] bytes = Frame.wire(command);
        if (!Arrays.equals(bytes, Frame.encode(command))) {
            throw new IllegalStateException(name + ": encode() and fastEncodeHeader() disagree");
        }
        Frame.describe(out.block(name), command, type, "ext.", bytes);
    }

    private static RemotingCommand request(int code, int opaque) {
        RemotingCommand command = RemotingCommand.createRequestCommand(code, null);
        command.setOpaque(opaque);
        command.setVersion(Fill.COMMAND_VERSION);
        return command;
    }

    private static RemotingCommand response(int code, String remark, int opaque) {
        RemotingCommand command = RemotingCommand.createResponseCommand(code, remark);
        command.setOpaque(opaque);
        command.setVersion(Fill.COMMAND_VERSION);
        return command;
    }
}
