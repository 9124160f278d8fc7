import java.io.*;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.ScheduledFuture;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.storage.log.FetchIsolation;
import org.apache.kafka.server.util.Scheduler;
import org.apache.kafka.storage.internals.log.*;
import org.apache.kafka.storage.internals.utils.Throttler;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

/**
 * Apache Kafka's own log, by itself: does what a line of standard input says, answers with a line.
 *
 *   open DIRECTORY clean|unclean [name=value]...     nanoseconds
 *   append FILE COUNT     the file holds one batch   nanoseconds
 *   read                  all, by 1 MiB              nanoseconds, bytes
 *   flush                                            nanoseconds
 *   clean                 one round of compaction    nanoseconds, bytes before and after
 *   close                 as a crash does            nanoseconds
 */
public class KafkaLog {
    static final int READ_SIZE = 1 << 20;
    static final BrokerTopicStats STATS = new BrokerTopicStats();

    /** Nothing is done later. */
    static class NoScheduler implements Scheduler {
        public void startup() { }
        public void shutdown() { }
        public void resizeThreadPool(int size) { }
        public ScheduledFuture<?> schedule(String name, Runnable task, long delay, long period) {
            return (ScheduledFuture<?>) Proxy.newProxyInstance(KafkaLog.class.getClassLoader(),
                new Class<?>[] {ScheduledFuture.class},
                (proxy, method, arguments) -> method.getReturnType() == boolean.class ? true : null);
        }
    }

    static UnifiedLog log;

    static void open(String[] words) throws Exception {
        Properties settings = new Properties();
        for (String pair : Arrays.asList(words).subList(3, words.length))
            settings.put(pair.split("=")[0], pair.split("=")[1]);
        File directory = new File(words[1]);
        Files.createDirectories(directory.toPath());
        log = UnifiedLog.create(directory, new LogConfig(settings), 0, 0, new NoScheduler(), STATS, Time.SYSTEM,
            3_600_000, new ProducerStateManagerConfig(86_400_000, false), 600_000, new LogDirFailureChannel(1),
            words[2].equals("clean"), Optional.empty());
        log.updateHighWatermark(log.logEndOffset());
    }

    static void append(byte[] batch, int count) throws Exception {
        for (int i = 0; i < count; i++) {
            log.appendAsLeader(MemoryRecords.readableRecords(ByteBuffer.wrap(batch.clone())), 0);
            log.updateHighWatermark(log.logEndOffset());
        }
    }

    static long read() throws Exception {
        long bytes = 0;
        ByteBuffer buffer = ByteBuffer.allocate(READ_SIZE);
        for (long offset = 0; offset < log.logEndOffset(); ) {
            FetchDataInfo info = log.read(offset, READ_SIZE, FetchIsolation.HIGH_WATERMARK, true);
            FileRecords records = (FileRecords) info.records;
            buffer.clear().limit(records.sizeInBytes());
            records.readInto(buffer, 0);
            bytes += buffer.limit();
            // What a consumer would ask for next: behind the last whole batch that it was given.
            long next = offset;
            for (int position = 0; position + 61 <= buffer.limit(); ) {
                int size = buffer.getInt(position + 8) + 12;
                if (position + size > buffer.limit()) break;
                next = buffer.getLong(position) + buffer.getInt(position + 23) + 1;
                position += size;
            }
            offset = next;
        }
        return bytes;
    }

    static String clean() throws Exception {
        long before = log.size();
        Cleaner cleaner = new Cleaner(0, new SkimpyOffsetMap(128 << 20), 512 << 10, 512 << 10, 0.9,
            new Throttler(Double.MAX_VALUE, Long.MAX_VALUE, "throttle", "bytes", Time.SYSTEM), Time.SYSTEM, partition -> { });
        cleaner.doClean(new LogToClean(log, 0, log.activeSegment().baseOffset(), false), Time.SYSTEM.milliseconds());
        return before + " " + log.size();
    }

    static String step(String[] words) throws Exception {
        switch (words[0]) {
            case "open": open(words); return "";
            case "append": append(Files.readAllBytes(Path.of(words[1])), Integer.parseInt(words[2])); return "";
            case "read": return read() + "";
            case "flush": log.flush(true); return "";
            case "clean": return clean();
            case "close": log.closeHandlers(); return "";
            default: throw new IllegalArgumentException(words[0]);
        }
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), true);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            long started = System.nanoTime();
            String answer = step(line.split(" "));
            out.println("=" + (System.nanoTime() - started) + " " + answer);
        }
        System.exit(0);
    }
}
