package org.ferromq.golden;

import java.io.IOException;
import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import org.apache.rocketmq.remoting.CommandCustomHeader;
import org.apache.rocketmq.remoting.annotation.CFNotNull;
import org.apache.rocketmq.remoting.protocol.FastCodesHeader;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.SerializeType;

/** Every command header class: all fields set, and only the required ones, in both header serializations. */
final class Headers {
    private Headers() {
    }

    static Vectors vectors(String version) throws IOException {
        Vectors out = new Vectors("Every CommandCustomHeader of Apache RocketMQ " + version
            + " in a frame, as NettyEncoder puts it on the wire. Made by tests/interop/golden/generate.\n"
            + "full: every field set. minimal: only the @CFNotNull fields (and primitives, which Java always writes).\n"
            + "schema: name:JavaType, with ! when @CFNotNull. field.*: extFields in wire order. code is invented.\n"
            + ".../encode: what RemotingCommand.encode() gives where it differs from the wire (binary headers with an encoder of their own).");
        for (Class<?> type : Classes.inPackage("/protocol/header/")) {
            if (!CommandCustomHeader.class.isAssignableFrom(type)) {
                continue;
            }
            for (SerializeType serialize : SerializeType.values()) {
                add(out, type, serialize, true);
                add(out, type, serialize, false);
            }
        }
        return out;
    }

    private static void add(Vectors out, Class<?> type, SerializeType serialize, boolean full) {
        String name = Classes.shortName(type) + "/" + serialize.name().toLowerCase() + "/" + (full ? "full" : "minimal");
        RemotingCommand command = command(type, serialize, full);
        byte[] wire = Frame.wire(command);
        Vectors.Block block = out.block(name).put("class", type.getName());
        if (full) {
            block.put("schema", schema(type)).put("fastCodes", FastCodesHeader.class.isAssignableFrom(type));
        }
        Frame.describe(block, command, serialize, "field.", wire);

        RemotingCommand again = command(type, serialize, full);
        byte[] plain = Frame.encode(again);
        if (!Arrays.equals(plain, wire)) {
            Frame.describe(out.block(name + "/encode").put("class", type.getName()), again, serialize, "field.", plain);
        }
    }

    private static RemotingCommand command(Class<?> type, SerializeType serialize, boolean full) {
        CommandCustomHeader header = (CommandCustomHeader) Fill.blank(type);
        Bodies.stopClock(header);
        for (Field field : Classes.fields(type)) {
            if (Collection.class.isAssignableFrom(field.getType())) {
                continue; // written as toString(), with identity hashes in it
            } else if (full || field.isAnnotationPresent(CFNotNull.class)) {
                Fill.field(header, field, new Fill(false));
            } else if (!field.getType().isPrimitive()) {
                Fill.clear(header, field);
            }
        }
        int code = 100 + Math.floorMod(Classes.shortName(type).hashCode(), 900);
        RemotingCommand command = RemotingCommand.createRequestCommand(code, header);
        if (Classes.shortName(type).contains("Response")) {
            command.markResponseType();
        }
        command.setOpaque(code);
        command.setVersion(Fill.COMMAND_VERSION);
        command.setSerializeTypeCurrentRPC(serialize);
        return command;
    }

    private static String schema(Class<?> type) {
        List<String> parts = new ArrayList<>();
        for (Field field : Classes.fields(type)) {
            parts.add(field.getName() + ":" + field.getType().getSimpleName() + (field.isAnnotationPresent(CFNotNull.class) ? "!" : ""));
        }
        return String.join(" ", parts);
    }
}
