import java.io.BufferedOutputStream;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;

/**
 * Reads messages with Apache Kafka's own generated classes and writes them again.
 *
 * A line of input is "name version hex". A line of output is "refused" when the bytes do not decode,
 * "absent" when this release has no such class, else "left hex": bytes not read, and the message
 * written again ("-" where Kafka reads what it refuses to write: unknown tags out of order).
 */
public class CodecOracle {
    private static final String[] CLASSES = {
        "org.apache.kafka.common.message.%sData",
        "org.apache.kafka.common.message.%s",
        "org.apache.kafka.common.metadata.%s",
        "org.apache.kafka.coordinator.group.generated.%s",
        "org.apache.kafka.coordinator.share.generated.%s",
        "org.apache.kafka.coordinator.transaction.generated.%s",
        "org.apache.kafka.raft.generated.%s",
        "org.apache.kafka.server.log.remote.metadata.storage.generated.%s",
        "org.apache.kafka.server.storage.log.generated.%s",
        "org.apache.kafka.storage.internals.log.generated.%s",
        "org.apache.kafka.storage.internals.log.%s",
        "org.apache.kafka.streams.internals.generated.%s",
    };
    private static final Map<String, Class<?>> FOUND = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        var out = new PrintStream(new BufferedOutputStream(System.out, 1 << 16));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] fields = line.split(" ", -1);
            byte[] data = HexFormat.of().parseHex(fields[2]);
            out.println(answer(fields[0], Short.parseShort(fields[1]), ByteBuffer.wrap(data)));
        }
        out.flush();
    }

    private static String answer(String name, short version, ByteBuffer data) throws Exception {
        Class<?> found = FOUND.computeIfAbsent(name, CodecOracle::find);
        if (found == Void.class)
            return "absent";
        Message message = (Message) found.getDeclaredConstructor().newInstance();
        try {
            message.read(new ByteBufferAccessor(data), version);
        } catch (RuntimeException error) {
            return "refused";
        }
        try {
            ByteBuffer written = MessageUtil.toByteBufferAccessor(message, version).buffer();
            byte[] bytes = new byte[written.remaining()];
            written.get(bytes);
            return data.remaining() + " " + HexFormat.of().formatHex(bytes);
        } catch (RuntimeException error) {
            return data.remaining() + " -";
        }
    }

    private static Class<?> find(String name) {
        for (String pattern : CLASSES) {
            try {
                return Class.forName(String.format(pattern, name));
            } catch (ClassNotFoundException absent) {
                // the next one, then
            }
        }
        return Void.class;
    }
}
