import java.io.*;
import java.lang.reflect.Method;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.server.util.Scheduler;
import org.apache.kafka.storage.internals.log.*;
import org.apache.kafka.storage.internals.utils.Throttler;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

/**
 * Lets Apache Kafka's own cleaner do one round over a partition's directory: a line each.
 *
 * A question: directory|log start|first dirty offset, -1 for none|now|topic settings as
 * name=value,,name=value...
 * An answer: OK|first dirty|first uncleanable|ratio|must clean|reached, NONE where there is nothing
 * to clean, or ERR|what happened.
 */
public class LogCleanerOracle {
    static final ScheduledThreadPoolExecutor EXECUTOR = new ScheduledThreadPoolExecutor(1);

    /** Nothing is done later. */
    static final Scheduler NO_SCHEDULER = new Scheduler() {
        public void startup() { }
        public void shutdown() { }
        public ScheduledFuture<?> schedule(String name, Runnable task, long delay, long period) {
            return EXECUTOR.schedule(() -> { }, 1, TimeUnit.DAYS);
        }
        public void resizeThreadPool(int size) { }
    };

    static Object call(String name, Object... args) throws Exception {
        for (Method method : LogCleanerManager.class.getDeclaredMethods())
            if (method.getName().equals(name)) {
                method.setAccessible(true);
                return method.invoke(null, args);
            }
        throw new NoSuchMethodException(name);
    }

    static Object get(Object record, String name) throws Exception {
        Method method = record.getClass().getDeclaredMethod(name);
        method.setAccessible(true);
        return method.invoke(record);
    }

    static String run(String[] f) {
        long start = Long.parseLong(f[1]), dirty = Long.parseLong(f[2]), now = Long.parseLong(f[3]);
        Properties settings = new Properties();
        for (String pair : f[4].split(",,")) settings.put(pair.split("=")[0], pair.split("=")[1]);
        Time time = new FixedTime(now);
        try (UnifiedLog log = UnifiedLog.create(new File(f[0]), new LogConfig(settings), start, 0, NO_SCHEDULER,
                new BrokerTopicStats(), time, 900000, new ProducerStateManagerConfig(86400000, false), 600000,
                new LogDirFailureChannel(1), true, Optional.empty())) {
            log.updateHighWatermark(log.logEndOffset());
            Object range = call("cleanableOffsets", log, dirty < 0 ? Optional.empty() : Optional.of(dirty), now);
            long first = (long) get(range, "firstDirtyOffset");
            boolean must = (long) call("maxCompactionDelay", log, first, now) > 0;
            LogToClean chosen = new LogToClean(log, first, (long) get(range, "firstUncleanableDirtyOffset"), must);
            if (chosen.cleanableBytes() == 0) return "NONE";
            Cleaner cleaner = new Cleaner(0, new SkimpyOffsetMap(1 << 20), 1 << 16, 1 << 16, 0.9,
                new Throttler(Double.MAX_VALUE, Long.MAX_VALUE, "t", "e", time), time, partition -> { });
            long reached = cleaner.doClean(chosen, now).getKey();
            return "OK|" + first + "|" + chosen.firstUncleanableOffset() + "|" + chosen.cleanableRatio()
                + "|" + must + "|" + reached;
        } catch (Throwable e) {
            StringWriter trace = new StringWriter();
            e.printStackTrace(new PrintWriter(trace));
            return "ERR|" + trace.toString().replace('\n', ' ').replace('|', ' ');
        }
    }

    static class FixedTime implements Time {
        final long now;
        FixedTime(long now) { this.now = now; }
        public long milliseconds() { return now; }
        public long hiResClockMs() { return now; }
        public long nanoseconds() { return now * 1000000; }
        public void sleep(long ms) { }
        public void waitObject(Object o, java.util.function.Supplier<Boolean> c, long d) { }
        public org.apache.kafka.common.utils.Timer timer(long t) { return null; }
        public org.apache.kafka.common.utils.Timer timer(java.time.Duration t) { return null; }
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), true);
        for (String line; (line = in.readLine()) != null; ) out.println(run(line.split("\\|", -1)));
        System.exit(0);
    }
}
