package org.ferromq.golden;

import java.io.File;
import java.io.IOException;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;

/** Finds classes in the rocketmq jars of the class path, so that the same code serves versions that keep them in different packages. */
final class Classes {
    private Classes() {
    }

    /** Concrete classes below a package whose name contains `part`, by simple name. */
    static List<Class<?>> inPackage(String part) throws IOException {
        List<Class<?>> found = new ArrayList<>();
        for (String entry : System.getProperty("java.class.path").split(File.pathSeparator)) {
            String file = new File(entry).getName();
            if (!file.matches("rocketmq-(common|remoting|store|broker|client)-[0-9.]+\\.jar")) {
                continue;
            }
            try (JarFile jar = new JarFile(entry)) {
                for (JarEntry item : Collections.list(jar.entries())) {
                    String name = item.getName();
                    if (name.endsWith(".class") && name.contains(part) && !name.contains("package-info")) {
                        Class<?> type = load(name.substring(0, name.length() - 6).replace('/', '.'));
                        if (!Modifier.isAbstract(type.getModifiers()) && !type.isEnum()) {
                            found.add(type);
                        }
                    }
                }
            }
        }
        found.sort(Comparator.comparing((Class<?> type) -> shortName(type)).thenComparing(Class::getName));
        return found;
    }

    private static Class<?> load(String name) {
        try {
            return Class.forName(name, false, Classes.class.getClassLoader());
        } catch (ClassNotFoundException e) {
            throw new IllegalStateException(e);
        }
    }

    static String shortName(Class<?> type) {
        String name = type.getName();
        return name.substring(name.lastIndexOf('.') + 1);
    }

    /** Instance fields, base class last, each class in declaration order. */
    static List<Field> fields(Class<?> type) {
        List<Field> fields = new ArrayList<>();
        for (Class<?> c = type; c != null && c != Object.class; c = c.getSuperclass()) {
            for (Field field : c.getDeclaredFields()) {
                if (!Modifier.isStatic(field.getModifiers()) && !field.getName().startsWith("this$")) {
                    if (c.getName().startsWith("org.apache.rocketmq")) {
                        field.setAccessible(true);
                    }
                    fields.add(field);
                }
            }
        }
        return fields;
    }
}
