package org.ferromq.golden;

import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.lang.reflect.WildcardType;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import sun.misc.Unsafe;

/**
 * Fills objects by reflection with values that depend only on a field's name and place: the same field has the same value
 * in every class and version. No clock, no randomness, no identity hashes decide an order.
 */
final class Fill {
    /** The version number in every golden frame. */
    static final int COMMAND_VERSION = 400;
    /** Stands for every "now": 2023-11-14 22:13:20 UTC. */
    static final long NOW = 1_700_000_000_000L;

    private static final Unsafe UNSAFE = unsafe();
    /** What bodies use in place of a bare field name, to look like the real thing. */
    private static final Map<String, String> WORDS = new HashMap<>();

    static {
        WORDS.put("topic", "TopicTest");
        WORDS.put("topicName", "TopicTest");
        WORDS.put("cluster", "DefaultCluster");
        WORDS.put("clusterName", "DefaultCluster");
        WORDS.put("brokerName", "broker-a");
        WORDS.put("bname", "broker-a");
        WORDS.put("brokerAddr", "127.0.0.1:10911");
        WORDS.put("brokerAddrs", "127.0.0.1:1091");
        WORDS.put("brokerAddrTable", "broker-");
        WORDS.put("clusterAddrTable", "Cluster");
        WORDS.put("topicConfigTable", "Topic");
        WORDS.put("clientId", "127.0.0.1@4711");
        WORDS.put("clientAddr", "127.0.0.1:50001");
        WORDS.put("consumerGroup", "group-a");
        WORDS.put("groupName", "group-a");
        WORDS.put("group", "group-a");
        WORDS.put("subString", "TagA || TagB");
        WORDS.put("expressionType", "TAG");
        WORDS.put("orderTopicConf", "broker-a:4;broker-b:4");
        WORDS.put("tagsSet", "Tag");
    }

    private final boolean words;

    /** `words`: plausible values for well-known names instead of the names themselves. */
    Fill(boolean words) {
        this.words = words;
    }

    /** An object as its class makes it; without any initializer when there is no constructor to call without arguments. */
    static Object blank(Class<?> type) {
        try {
            Constructor<?> constructor = type.getDeclaredConstructor();
            constructor.setAccessible(true);
            return constructor.newInstance();
        } catch (NoSuchMethodException e) {
            try {
                return UNSAFE.allocateInstance(type);
            } catch (InstantiationException abstractType) {
                throw new IllegalStateException(abstractType);
            }
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }

    static boolean hasPlainConstructor(Class<?> type) {
        for (Constructor<?> constructor : type.getDeclaredConstructors()) {
            if (constructor.getParameterCount() == 0) {
                return true;
            }
        }
        return false;
    }

    Object object(Class<?> type, int index) {
        return object(type, type, index);
    }

    /** `generic` gives the arguments of the type's own parameters. */
    private Object object(Class<?> type, Type generic, int index) {
        Object object = blank(type);
        for (Field field : Classes.fields(type)) {
            if (field.getType() == Random.class) {
                continue; // BrokerData's, for picking an address
            }
            set(object, field, value(resolve(field.getGenericType(), type, generic), field.getName(), index));
        }
        return object;
    }

    static void field(Object object, Field field, Fill fill) {
        set(object, field, fill.value(field.getGenericType(), field.getName(), 0));
    }

    static void clear(Object object, Field field) {
        set(object, field, null);
    }

    private static void set(Object object, Field field, Object value) {
        try {
            field.set(object, value);
        } catch (IllegalAccessException e) {
            throw new IllegalStateException(field + " cannot be set", e);
        }
    }

    private static Type resolve(Type type, Class<?> owner, Type generic) {
        if (type instanceof TypeVariable && generic instanceof ParameterizedType) {
            TypeVariable<?>[] names = owner.getTypeParameters();
            for (int i = 0; i < names.length; i++) {
                if (names[i].equals(type)) {
                    return ((ParameterizedType) generic).getActualTypeArguments()[i];
                }
            }
        }
        return type;
    }

    /** A value of a type for a field of that name; `index` tells the elements of one collection apart. */
    Object value(Type type, String name, int index) {
        Class<?> raw = raw(type);
        if (raw == String.class || raw == Object.class || raw == CharSequence.class) {
            return text(name, index);
        } else if (words && name.equals("perm")) {
            return 6;
        } else if (raw == int.class || raw == Integer.class) {
            return number(name, index);
        } else if (raw == long.class || raw == Long.class) {
            return wide(name, index);
        } else if (raw == short.class || raw == Short.class) {
            return (short) number(name, index);
        } else if (raw == byte.class || raw == Byte.class) {
            return (byte) (number(name, index) & 0x7f);
        } else if (raw == boolean.class || raw == Boolean.class) {
            return Boolean.TRUE;
        } else if (raw == double.class || raw == Double.class) {
            return number(name, index) / 8.0;
        } else if (raw == float.class || raw == Float.class) {
            return number(name, index) / 8.0f;
        } else if (raw == AtomicLong.class) {
            return new AtomicLong(number(name, index));
        } else if (raw == AtomicInteger.class) {
            return new AtomicInteger(number(name, index));
        } else if (raw == byte[].class) {
            return text(name, index).getBytes(StandardCharsets.UTF_8);
        } else if (raw == long[].class) {
            return new long[] {number(name, index), number(name, index) + 1};
        } else if (raw.isEnum()) {
            Object[] constants = raw.getEnumConstants();
            return constants[Math.floorMod(index + 1, constants.length)];
        } else if (raw == BitSet.class) {
            BitSet bits = new BitSet();
            bits.set(0);
            bits.set(5);
            bits.set(9);
            return bits;
        } else if (raw == Properties.class) {
            Properties properties = new Properties();
            properties.setProperty(text(name, 1), "value1");
            properties.setProperty(text(name, 2), "value2");
            return properties;
        } else if (Map.class.isAssignableFrom(raw)) {
            return map(raw, type, name);
        } else if (Collection.class.isAssignableFrom(raw)) {
            return collection(raw, type, name);
        } else if (raw.getName().startsWith("org.apache.rocketmq") && !raw.isInterface()) {
            return object(raw, type, index);
        }
        throw new IllegalStateException("no value for " + type + " " + name);
    }

    private String text(String name, int index) {
        String word = words ? WORDS.getOrDefault(name, name) : name;
        return index == 0 || name.equals("expressionType") ? word : word + index;
    }

    private static int number(String name, int index) {
        return 1000 + Math.floorMod(name.hashCode(), 900_000) + index;
    }

    private static long wide(String name, int index) {
        String lower = name.toLowerCase();
        if (lower.contains("timestamp") || lower.endsWith("time")) {
            return NOW + number(name, index);
        }
        return (1L << 40) + number(name, index);
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    private Object map(Class<?> raw, Type type, String name) {
        Type key = argument(type, 0);
        Type item = argument(type, 1);
        Map map;
        if (TreeMap.class.isAssignableFrom(raw)) {
            map = new TreeMap();
        } else if (ConcurrentMap.class.isAssignableFrom(raw)) {
            map = new ConcurrentHashMap();
        } else {
            map = orderly(key) ? new HashMap() : new LinkedHashMap();
        }
        for (int i = 0; i < 2; i++) {
            Class<?> rawKey = raw(key);
            Object k = rawKey == Long.class ? (Object) (long) i : rawKey == Integer.class ? (Object) i : value(key, name, i + 1);
            map.put(k, value(item, rawKey == String.class ? name + "Value" : name, i + 1));
        }
        return map;
    }

    @SuppressWarnings({"unchecked", "rawtypes"})
    private Object collection(Class<?> raw, Type type, String name) {
        Type item = argument(type, 0);
        Collection items;
        if (TreeSet.class.isAssignableFrom(raw)) {
            items = new TreeSet();
        } else if (Set.class.isAssignableFrom(raw)) {
            items = orderly(item) ? new HashSet() : new LinkedHashSet();
        } else if (raw.isAssignableFrom(ArrayList.class)) {
            items = new ArrayList();
        } else if (List.class.isAssignableFrom(raw)) {
            items = (Collection) blank(raw);
        } else {
            throw new IllegalStateException("no value for " + type + " " + name);
        }
        for (int i = 0; i < 2; i++) {
            items.add(value(item, name, i + 1));
        }
        return items;
    }

    /** Whether hash order is the same in every run: only types whose hash comes from their value alone. */
    private static boolean orderly(Type type) {
        Class<?> raw = raw(type);
        return raw == String.class || raw == Long.class || raw == Integer.class || raw.getSimpleName().equals("MessageQueue");
    }

    private static Type argument(Type type, int i) {
        return type instanceof ParameterizedType ? ((ParameterizedType) type).getActualTypeArguments()[i] : String.class;
    }

    private static Class<?> raw(Type type) {
        if (type instanceof Class) {
            return (Class<?>) type;
        } else if (type instanceof ParameterizedType) {
            return (Class<?>) ((ParameterizedType) type).getRawType();
        } else if (type instanceof WildcardType) {
            return raw(((WildcardType) type).getUpperBounds()[0]);
        }
        return Object.class;
    }

    private static Unsafe unsafe() {
        try {
            Field field = Unsafe.class.getDeclaredField("theUnsafe");
            field.setAccessible(true);
            return (Unsafe) field.get(null);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
    }
}
