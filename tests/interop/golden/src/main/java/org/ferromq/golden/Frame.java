package org.ferromq.golden;

import com.alibaba.fastjson.JSON;
import com.alibaba.fastjson.JSONObject;
import com.alibaba.fastjson.parser.Feature;
import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.SerializeType;

/** A command as bytes, in the two ways that Java has, and its extFields in the order in which they lie in those bytes. */
final class Frame {
    private Frame() {
    }

    /** What goes over a socket: the steps of NettyEncoder. */
    static byte[] wire(RemotingCommand command) {
        ByteBuf out = Unpooled.buffer();
        command.fastEncodeHeader(out);
        if (command.getBody() != null) {
            out.writeBytes(command.getBody());
        }
        byte[] bytes = new byte[out.readableBytes()];
        out.readBytes(bytes);
        return bytes;
    }

    /** RemotingCommand.encode(): the same, except for binary headers that have an encoder of their own. */
    static byte[] encode(RemotingCommand command) {
        ByteBuffer buffer = command.encode();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
    }

    static Map<String, String> extFields(byte[] frame) {
        Map<String, String> fields = new LinkedHashMap<>();
        ByteBuffer buffer = ByteBuffer.wrap(frame);
        buffer.getInt();
        int word = buffer.getInt();
        int length = RemotingCommand.getHeaderLength(word);
        if (RemotingCommand.getProtocolType(word) == SerializeType.JSON) {
            String json = new String(frame, 8, length, StandardCharsets.UTF_8);
            JSONObject ext = ((JSONObject) JSON.parse(json, Feature.OrderedField)).getJSONObject("extFields");
            if (ext != null) {
                ext.forEach((key, value) -> fields.put(key, String.valueOf(value)));
            }
            return fields;
        }
        buffer.position(8 + 2 + 1 + 2 + 4 + 4);
        skip(buffer, buffer.getInt());
        int end = buffer.getInt() + buffer.position();
        while (buffer.position() < end) {
            String key = text(buffer, buffer.getShort());
            fields.put(key, text(buffer, buffer.getInt()));
        }
        return fields;
    }

    private static void skip(ByteBuffer buffer, int length) {
        buffer.position(buffer.position() + length);
    }

    private static String text(ByteBuffer buffer, int length) {
        byte[] bytes = new byte[length];
        buffer.get(bytes);
        return new String(bytes, StandardCharsets.UTF_8);
    }

    /** Writes the fields that every frame has, then its extFields as `prefix + name`, then the bytes. */
    static void describe(Vectors.Block block, RemotingCommand command, SerializeType type, String prefix, byte[] bytes) {
        block.put("serialize", type)
            .put("code", command.getCode())
            .put("language", command.getLanguage())
            .put("version", command.getVersion())
            .put("opaque", command.getOpaque())
            .put("flag", command.getFlag())
            .put("remark", command.getRemark());
        extFields(bytes).forEach((key, value) -> block.put(prefix + key, value));
        if (command.getBody() != null) {
            block.put("bodyHex", Vectors.hex(command.getBody()));
        }
        block.bytes(bytes);
    }
}
