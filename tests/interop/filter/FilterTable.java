import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.apache.rocketmq.common.filter.ExpressionType;
import org.apache.rocketmq.filter.FilterFactory;
import org.apache.rocketmq.filter.FilterSpi;
import org.apache.rocketmq.filter.expression.EvaluationContext;
import org.apache.rocketmq.filter.expression.Expression;
import org.apache.rocketmq.filter.expression.MQFilterException;

/**
 * Writes what Java's SQL filter answers for many expressions over some sets of properties: {@code FilterTable FILE [RANDOM_ROWS]}.
 * Two runs give the same file. More random rows than the default compare more than is worth keeping in the repository.
 */
public class FilterTable {
    private static final Map<String, Map<String, String>> SETS = new LinkedHashMap<>();
    private static final Set<String> EXPRESSIONS = new LinkedHashSet<>();

    public static void main(String[] arguments) throws Exception {
        int randomRows = arguments.length > 1 ? Integer.parseInt(arguments[1]) : 250;
        sets();
        comparisons();
        operators();
        literals();
        logic();
        texts();
        refused();
        random(randomRows);

        StringBuilder out = new StringBuilder();
        out.append("# What SqlFilter of Apache RocketMQ 5.3.3 answers. Made by tests/interop/filter/FilterTable.java.\n");
        out.append("# First the sets of properties; then one line for each expression: its result for each set, in their order, or REFUSED.\n\n");
        for (Map.Entry<String, Map<String, String>> set : SETS.entrySet()) {
            out.append("properties ").append(set.getKey()).append('\n');
            set.getValue().forEach((name, value) -> out.append("    ").append(name).append(" = ").append(quote(value)).append('\n'));
        }
        out.append('\n');
        FilterSpi filter = FilterFactory.INSTANCE.get(ExpressionType.SQL92);
        for (String text : EXPRESSIONS) {
            StringBuilder row = new StringBuilder();
            try {
                Expression expression = filter.compile(text);
                for (Map<String, String> set : SETS.values()) {
                    row.append(String.format("%-6s", answer(expression, set)));
                }
            } catch (MQFilterException e) {
                row.append("REFUSED ");
            }
            out.append(row).append("| ").append(quote(text)).append('\n');
        }
        Files.write(Path.of(arguments[0]), out.toString().getBytes(StandardCharsets.UTF_8));
        System.out.println(EXPRESSIONS.size() + " expressions, " + SETS.size() + " sets of properties");
    }

    private static String answer(Expression expression, Map<String, String> properties) {
        EvaluationContext context = new EvaluationContext() {
            @Override
            public Object get(String name) {
                return properties.get(name);
            }

            @Override
            public Map<String, Object> keyValues() {
                return new LinkedHashMap<>(properties);
            }
        };
        try {
            Object value = expression.evaluate(context);
            return value == null ? "NULL" : value instanceof Boolean ? value.toString().toUpperCase() : "OTHER";
        } catch (Exception e) {
            return "ERROR";
        }
    }

    private static void sets() {
        set("none");
        set("small", "a", "5", "b", "7", "s", "apple", "t", "true", "$c", "x", "_d1", "y", "TAGS", "TagA", "KEYS", "k1 k2");
        set("large", "a", "3000000000", "b", "-2147483648", "s", "Apple", "t", "TRUE");
        set("huge", "a", "9223372036854775808", "b", "9223372036854775807", "s", "it's", "t", "tRuE");
        set("fraction", "a", "5.5", "b", "1e3", "s", "", "t", "false");
        set("words", "a", "abc", "b", "5", "s", "苹果", "t", "yes");
        set("signed", "a", " 5 ", "b", "+5", "s", "'", "t", "1");
        set("special", "a", "NaN", "b", "Infinity", "s", "null", "t", "");
        set("zeros", "a", "-0.0", "b", "0", "s", "0.0", "t", "-0");
        set("digits", "a", "５", "b", "5f", "s", "005", "t", " ");
        set("same", "a", "x", "b", "x", "s", "x");
    }

    /** Every operator between every pair of kinds. */
    private static void comparisons() {
        String[] operands = {"a", "5", "5L", "3000000000", "5.5", "1e3", "'5'", "'x'", "TRUE", "FALSE", "NULL", "-5", "-a", "(a = b)"};
        for (String operator : new String[] {"=", "<>", ">", ">=", "<", "<="}) {
            for (String operand : operands) {
                row("b " + operator + " " + operand);
                row(operand + " " + operator + " b");
            }
        }
        for (String left : operands) {
            for (String right : operands) {
                row(left + " = " + right);
            }
        }
        for (String left : new String[] {"5", "5.0", "5000000000", "-0.5", "-(a)"}) {
            for (String right : new String[] {"5", "5.0", "5000000000", "-0.5", "'5'"}) {
                row(left + " <= " + right);
                row(left + " <> " + right);
            }
        }
        rows("a = a", "absent = gone", "absent = s", "s = absent", "absent <> gone", "NOT (absent = gone)", "absent < gone", "s < absent",
            "a > b", "a = 9223372036854775807", "b = 9223372036854775807", "b >= -2147483648", "b = -2147483648", "a = -0", "a < 0.5",
            "s = t", "t = TRUE", "t = FALSE", "t <> TRUE", "TRUE = t", "t = (1 = 1)", "(1 = 1) = t", "t", "NOT t");
    }

    private static void operators() {
        for (String value : new String[] {"a", "absent", "5", "5.5", "'5'", "TRUE", "NULL", "-a", "(a = 5)", "NOT a"}) {
            for (String not : new String[] {" ", " NOT "}) {
                row(value + not + "BETWEEN 1 AND 10");
                row(value + not + "IN ('5', 'x', 'abc')");
                for (String search : new String[] {"CONTAINS", "STARTSWITH", "ENDSWITH"}) {
                    row(value + not + search + " '5'");
                    row(value + not + search + " ''");
                }
            }
            row(value + " IS NULL");
            row(value + " IS NOT NULL");
        }
        rows("a BETWEEN 10 AND 1", "a NOT BETWEEN 10 AND 1", "a BETWEEN 5 AND 5", "a BETWEEN 5 AND 5.0", "a BETWEEN 5.5 AND 5", "a BETWEEN 1 AND b",
            "a BETWEEN b AND 10", "a BETWEEN absent AND 10", "a BETWEEN 1 AND absent", "a BETWEEN 6 AND absent", "a NOT BETWEEN 6 AND absent",
            "a NOT BETWEEN absent AND 3", "a BETWEEN '1' AND '9'", "a BETWEEN 1 AND '9'", "a BETWEEN b AND '9'", "a BETWEEN 1 AND NULL",
            "a BETWEEN NULL AND 1", "a BETWEEN TRUE AND FALSE", "a BETWEEN 5 AND -5", "a BETWEEN -5 AND 5", "a BETWEEN -5 AND -10",
            "a BETWEEN (1) AND (10)", "a BETWEEN 1 AND (b = 5)", "5 BETWEEN a AND b", "a BETWEEN 1 AND 10 AND b BETWEEN 1 AND 10",
            "a BETWEEN 1 AND 10 OR b = 5", "a BETWEEN 1 OR 10", "a BETWEEN 1, 10", "a BETWEEN 1", "a BETWEEN", "a BETWEEN 1 AND",
            "a BETWEEN 1 AND 3000000000", "a BETWEEN 3000000000 AND 1", "a BETWEEN 0.5 AND 1e300", "a BETWEEN -a AND 5", "s BETWEEN 1 AND 2");
        rows("s IN ('apple')", "s IN ('Apple','apple','pear','fig','it''s','苹果')", "s IN ('')", "s IN ('''')", "s NOT IN ('apple', 'it''s')", "s IN ()",
            "s IN ('a',)", "s IN (,'a')", "s IN ('a' 'b')", "s IN 'a'", "s IN (a)", "s IN (5)", "a IN ('5', 5)", "s IN (NULL)", "s IN (TRUE)",
            "s IN (('a'))", "s IN ('a'", "(s) IN ('apple')", "+s IN ('apple')", "-s IN ('apple')", "NOT s IN ('apple')", "NOT (s IN ('apple'))",
            "'s' IN ('s')", "s IN ('apple') = TRUE", "s IN ('apple') IS NULL", "s IN ('apple') IN ('x')", "s NOT NOT IN ('a')", "s IN ('b','b','apple')",
            "t IN ('', ' ', 'true')", "TAGS IN ('TagA', 'TagB')");
        rows("s CONTAINS 'pp'", "s NOT CONTAINS 'pp'", "s STARTSWITH 'ap'", "s NOT STARTSWITH 'ap'", "s ENDSWITH 'le'", "s NOT ENDSWITH 'le'",
            "s CONTAINS '苹'", "s ENDSWITH '果'", "s CONTAINS ''''", "s CONTAINS t", "s CONTAINS 5", "s CONTAINS NULL", "s CONTAINS", "s CONTAINS ('p')",
            "'apple' CONTAINS 'pp'", "'apple' NOT CONTAINS 'x'", "5 CONTAINS '5'", "TRUE STARTSWITH 'T'", "(TRUE = s) CONTAINS 'x'", "(TRUE = s) CONTAINS ''",
            "s CONTAINS 'p' CONTAINS 'p'", "s CONTAINS 'p' = TRUE", "s CONTAINS 'p' IS NOT NULL", "NOT s CONTAINS 'p'", "NOT (s CONTAINS 'p')",
            "s CONTAINS 'p' > 1", "s NOT CONTAINS 'p' NOT CONTAINS 'q'", "s STARTSWITH 'apple' AND s ENDSWITH 'apple'", "NOT (absent NOT CONTAINS 'x')",
            "s STARTSWITH ' '", "s ENDSWITH 'e ' OR s = 'apple'", "-s CONTAINS 'p'", "+s CONTAINS 'p'", "s NOT LIKE 'a'", "s LIKE 'a%'");
        rows("NULL IS NULL", "NULL IS NOT NULL", "1 IS NULL", "'' IS NULL", "TRUE IS NULL", "s IS NULL IS NULL", "absent IS NULL IS NOT NULL",
            "(a = b) IS NULL", "a = b IS NULL", "a > b IS NULL", "-s IS NULL", "-5 IS NULL", "NOT s IS NULL", "NOT (s IS NULL)", "s IS", "s IS NOT",
            "s IS NOT NOT NULL", "s IS 'x'", "s IS TRUE", "s IS NOT TRUE", "s NOT NULL", "s NULL", "(TRUE = s) IS NULL", "s = NULL", "s <> NULL",
            "NULL = s", "NULL = NULL", "s = (NULL)", "s = -NULL", "s = +NULL", "-NULL = -s", "NULL > 1", "s > NULL", "NULL", "NOT NULL", "NULL AND TRUE",
            "NULL OR TRUE", "NULL AND FALSE", "(NULL) OR (FALSE)");
    }

    private static void literals() {
        for (String number : new String[] {"0", "00", "007", "5", "05", "0L", "0l", "5l", "5LL", "10L5", "2147483647", "2147483648", "9223372036854775807",
            "9223372036854775807L", "9223372036854775808", "99999999999999999999", "5.", "5.0", "5.5", ".5", "0.5", "00.5", "0.0", "0.", ".0", "0e0", "0e5",
            "5e0", "5E0", "5e+0", "5e-0", "5.e0", ".5e1", "55e-1", "5e", "5e+", "5.5e", "5.5.5", "5.5L", "5.5f", "5d", "1e308", "1e309", "1e400", "4.9e-324",
            "5e-324", "1e-324", "1e-400", "1.7976931348623157e308", "1.7976931348623159e308", "0x5", "5_0", "+5", "-5", "--5", "- -5", "+-5", "-+5", "+ +5",
            "- 5", "-2147483648", "-9223372036854775807", "-9223372036854775808", "(5)", "-(5)", "-(-5)", "-5.5", "-0.0", "-.5", "5 5", "５", "1 000", "1,000", "."}) {
            row("a = " + number);
            row("b >= " + number);
        }
        for (String text : new String[] {"''", "' '", "''''", "'it''s'", "'it's'", "'''", "''''''", "'apple", "apple'", "\"apple\"", "'ap' 'ple'", "'apple''",
            "'ap\nple'", "'苹果'", "'\\''", "'%'", "'/* */'", "'-- '", "('apple')", "+'apple'", "-'apple'", "`apple`", "'😀'", "N'apple'"}) {
            row("s = " + text);
        }
        for (String truth : new String[] {"TRUE", "true", "True", "FALSE", "false", "TRUEx", "'TRUE'", "'true'", "(TRUE)", "-TRUE", "+TRUE", "NOT TRUE", "NOT FALSE"}) {
            row(truth);
            row("t = " + truth);
            row(truth + " = t");
        }
        rows("TRUE = TRUE", "TRUE = FALSE", "TRUE <> FALSE", "TRUE = 1", "1 = TRUE", "1 <> TRUE", "TRUE = 'true'", "'true' = TRUE", "'TRUE' = TRUE",
            "'no' = FALSE", "TRUE > FALSE", "1 = 1", "1 = 1L", "1 = 1.0", "1.0 = 1", "'1' = 1", "1 = '1'", "1 = 'x'", "'x' = 1", "'1.0' = 1", "1 = '1.0'",
            "1.5 = '1.5'", "'a' = 'a'", "'a' <> 'A'", "'a' < 'b'", "'1' < '2'", "1 < 2", "1 < 2.5", "2 > 1 = TRUE", "1 > '0'", "3000000000 = 3e9",
            "9007199254740993 = 9007199254740992.0", "9007199254740993 = 9007199254740992", "-1 < 1", "-1 = -(1)", "-1.5 < -1");
    }

    private static void logic() {
        String[] truths = {"TRUE", "FALSE", "NULL", "a > 4", "t = TRUE", "absent = 1", "s"};
        for (String left : truths) {
            row("NOT " + left);
            row("NOT (" + left + ")");
            row("NOT NOT " + left);
            for (String right : truths) {
                row(left + " AND " + right);
                row(left + " OR " + right);
            }
        }
        rows("TRUE OR FALSE AND FALSE", "(TRUE OR FALSE) AND FALSE", "FALSE AND FALSE OR TRUE", "FALSE AND (FALSE OR TRUE)", "NOT FALSE AND FALSE",
            "NOT (FALSE AND FALSE)", "NOT TRUE OR TRUE", "a = 5 AND b = 7 OR s = 'x'", "s = 'x' OR a = 5 AND b = 7", "a = 5 OR b = 5 OR s = 'x'",
            "absent = 1 OR s = 'apple'", "absent = 1 AND s = 'apple'", "NOT (absent = 1)", "NOT (absent = 1 AND s = 'apple')", "NOT absent = 1", "NOT a = 5",
            "NOT s = 'apple'", "NOT a > 5", "NOT (a > 5)", "NOT NOT (a > 5)", "(((a = 5)))", "((a) = (5))", "(a = 5", "a = 5)", "a = (5", "a AND b", "a OR absent",
            "absent OR TRUE", "absent OR FALSE", "a AND TRUE", "a = b = TRUE", "a = b = s", "a = 5 = TRUE", "TRUE = a = 5", "TRUE = (a = 5)", "a = 5 <> FALSE",
            "a = (b = 5)", "a <> b <> s", "5 = 5 = 5", "(1 = 1) = (2 = 2)", "a > 1 > 2", "a > (1 > 2)", "1 < a < 10", "a = 1 > 0", "a = 5 AND NOT b = 7",
            "a = 5 AND NOT (b = 7)", "a AND 5", "5 AND a", "'x' OR a", "a OR 'x'", "-a OR TRUE", "NOT 5", "NOT 'x'", "NOT -a", "NOT", "5", "'x'", "a", "(a)", "+a", "-a",
            "5.5", "-5", "(5)", "FALSE AND (TRUE = s)", "(TRUE = s) AND FALSE", "TRUE OR (TRUE = s)", "(TRUE = s) OR TRUE", "NOT (TRUE = s)", "-(TRUE = s) > 1",
            "1 > -(TRUE = s)", "absent > -(TRUE = s)", "-(TRUE = s) IS NULL", "a > 4 OR s = 'apple'", "s = 'apple' OR a > 4", "a > 4 AND s = 'apple'");
    }

    /** Blanks, comments, names, and what may stand behind an expression. */
    private static void texts() {
        for (String behind : new String[] {"b", "5", "'x'", ")", "))", "(", ",", "= 5", "+ 1", "- 1", "* 1", "/ 1", "-- end", "-- end\n", "/* end */", "/* end",
            "/", "*", "NOT", "NOT b", "NOT b = 1", "AND", "OR", "IN", "IS", ";", "!", "#", "'", "'x", "BETWEEN", "TRUE", "NULL", "b ! #", ") ! '", "é", ".", ".5", "b.c", "\0"}) {
            row("a = 5 " + behind);
            row("s " + behind);
        }
        rows("", " ", "\t\r\n\f", "--", "-- a\n", "/* a */", "a=5", " a = 5 ", "\ta\n=\r\n5\f", "a\u000b= 5", "a\u00a0= 5", "a /**/ = /***/ 5", "a /* = 6 */ = 5",
            "a /* * / */ = 5", "a /*/ = 5", "a /*/ */ = 5", "a /* /* */ */ = 5", "a = -- five\n5", "a = -- five\r5", "a = -- five\r\n5", "a = -- 5", "a = --5", "a = --5\n",
            "-- first\na = 5", "a = 5 -- AND b = 6\nAND b = 7", "a = 5 -- AND b = 6", "a -- b", "a-b = 5", "a - b = 5", "a+b = 5", "a.b = 5", "a.5 = 5", "a*b = 5");
        rows("$c = 'x'", "_d1 = 'y'", "$ = 'x'", "_ = 'x'", "$$ IS NULL", "a$b IS NULL", "A = 5", "S = 'apple'", "1a = 5", "é = 5", "s苹 = 5", "TAGS = 'TagA'", "tags = 'TagA'",
            "KEYS CONTAINS 'k2'", "and = 5", "not = 5", "in = 5", "is IS NULL", "null IS NULL", "true = 5", "contains = 5", "between = 5", "ANDx IS NULL", "NOTa IS NULL",
            "inn IS NULL", "escape IS NULL", "like IS NULL", "xpath IS NULL", "now > 1", "\"a\" = 5", "[a] = 5", "a:b = 5", "@a = 5", "#a = 5");
        rows("a = 5 and b = 7", "a = 5 AnD b = 7", "a = 6 or b = 7", "not (a = 5)", "a between 1 and 9", "s in ('apple')", "s is null", "s is not null", "S iS nOt NuLl",
            "s contains 'pp'", "s startswith 'a'", "s endswith 'e'", "s not contains 'pp'", "a=5AND b=7", "a=5 AND(b=7)", "NOT(a=5)", "s IN('apple')", "s='apple'AND a=5",
            "a>4AND a<6", "a BETWEEN 1AND 9", "a BETWEEN 1 AND9", "5=a", "a=5L", "a=5LAND b=7", "a=5eAND b=7", "a = 5.AND b = 7", "a>=5", "a> =5", "a<>5", "a< >5", "a< =5",
            "a=>5", "a=<5", "a==5", "a!=5", "a <= > 5", "a ^= 5");
    }

    private static void refused() {
        rows("a =", "= 5", "= = 5", "a = = 5", "a > > 5", "a = > 5", "AND", "OR", "a AND", "AND a", "a AND AND b", "a OR OR b", "a AND OR b", "()", "(", ")", "a = ()",
            "(a", "((a)", "a IN", "a NOT", "a NOT IN", "a NOT =", "a NOT = 5", "a NOT > 5", "a NOT a", "NOT NOT", "NOT AND a", "a BETWEEN AND 5", "a BETWEEN 1 AND AND 5",
            "+", "-", "+ = 5", "a = +", "a = -", "a = NOT", "a = NOT b", "a = NOT TRUE", "a > NOT b", "a = AND", "a = IN", "a = BETWEEN 1 AND 2", ",", "a, b", "a = 5,", "'",
            "!", "?", "a ? b", "a % 2 = 0", "a * 2 = 10", "a / 2 = 1", "a || 'x' = 'y'", "a & b", "{a}", "SELECT a", "a = :x", "a = ?", "a = @", "CONTAINS 'x'", "IS NULL",
            "IN ('x')", "BETWEEN 1 AND 2", "a = b AND", "a = (b AND", "a = (b OR c)", "a IN ('x') AND", "EXISTS (a)", "a IS NULL NULL", "a IS NULL NOT", "a IS NULL AND");
    }

    /** Expressions in the shape of the grammar, and words in any order. */
    private static void random(int rows) {
        Random random = new Random(533);
        for (int i = 0; i < rows; i++) {
            row(expression(random, 1 + random.nextInt(4)));
        }
        String[] words = {"a", "b", "s", "5", "5.5", "'x'", "TRUE", "NULL", "NOT", "AND", "OR", "BETWEEN", "IN", "IS", "CONTAINS", "=", "<>", "<", ">=", "(", ")",
            ",", "+", "-", "a", "b", "(", ")", "=", "IS NULL", "IN ('x')", "--", "/*", "*/", "\n", "0", "."};
        for (int i = 0; i < rows; i++) {
            StringBuilder text = new StringBuilder();
            for (int length = 2 + random.nextInt(8); length > 0; length--) {
                text.append(text.length() > 0 && random.nextInt(8) > 0 ? " " : "").append(pick(random, words));
            }
            row(text.toString());
        }
    }

    private static String expression(Random random, int depth) {
        if (depth == 0) {
            return pick(random, "a", "a", "b", "s", "t", "absent", "5", "0", "5.5", "3000000000", "'5'", "'apple'", "TRUE", "FALSE", "NULL");
        }
        String inner = expression(random, depth - 1);
        switch (random.nextInt(14)) {
            case 0:
            case 1:
                return inner + " AND " + expression(random, depth - 1);
            case 2:
            case 3:
                return inner + " OR " + expression(random, depth - 1);
            case 4:
            case 5:
                return inner + pick(random, " = ", " <> ") + expression(random, depth - 1);
            case 6:
            case 7:
                return expression(random, 0) + pick(random, " < ", " <= ", " > ", " >= ") + expression(random, random.nextInt(3) / 2);
            case 8:
                return pick(random, "NOT ", "-", "+") + inner;
            case 9:
                return expression(random, random.nextInt(3) / 2) + pick(random, " BETWEEN ", " NOT BETWEEN ") + expression(random, 0) + " AND "
                    + expression(random, 0);
            case 10:
                return pick(random, "a", "b", "s", "t", "absent", inner) + pick(random, " IN ", " NOT IN ") + pick(random, "('5')", "('5', 'apple', '')");
            case 11:
                return inner + pick(random, " ", " NOT ") + pick(random, "CONTAINS", "STARTSWITH", "ENDSWITH") + pick(random, " '5'", " 'a'", " ''");
            case 12:
                return inner + pick(random, " IS NULL", " IS NOT NULL");
            default:
                return "(" + inner + ")";
        }
    }

    private static String pick(Random random, String... choices) {
        return choices[random.nextInt(choices.length)];
    }

    private static void set(String name, String... namesAndValues) {
        Map<String, String> properties = new LinkedHashMap<>();
        for (int i = 0; i < namesAndValues.length; i += 2) {
            properties.put(namesAndValues[i], namesAndValues[i + 1]);
        }
        SETS.put(name, properties);
    }

    private static void rows(String... texts) {
        EXPRESSIONS.addAll(List.of(texts));
    }

    private static void row(String text) {
        EXPRESSIONS.add(text);
    }

    /** A JSON string, so that a reader needs no quoting rules of its own. */
    private static String quote(String value) {
        StringBuilder out = new StringBuilder("\"");
        for (int i = 0; i < value.length(); i++) {
            char c = value.charAt(i);
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < 0x20 || c >= 0x7f && c <= 0xa0) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }
}
