import java.io.*;
import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.ScheduledFuture;
import java.util.stream.*;
import java.util.zip.CRC32;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.DescribeProducersResponseData;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.utils.*;
import org.apache.kafka.server.common.RequestLocal;
import org.apache.kafka.server.storage.log.FetchIsolation;
import org.apache.kafka.server.util.Scheduler;
import org.apache.kafka.storage.internals.log.*;
import org.apache.kafka.storage.log.metrics.BrokerTopicStats;

/**
 * Does to Apache Kafka's own UnifiedLog what it is told: one step a line, one answer a line.
 *
 * A step: its name and arguments between bars; "new" begins another log, its arguments are settings.
 * An answer: "=", what the step gave, or ERR and a code; then the state of the log.
 */
public class UnifiedLogOracle {
    static final BrokerTopicStats STATS = new BrokerTopicStats();
    static final FetchIsolation[] ISOLATIONS = {FetchIsolation.LOG_END, FetchIsolation.HIGH_WATERMARK, FetchIsolation.TXN_COMMITTED};

    /** Does at once what only writes a file of epochs, and leaves all else undone. */
    static class Tasks implements Scheduler {
        public void startup() { }
        public void shutdown() { }
        public void resizeThreadPool(int size) { }
        public ScheduledFuture<?> schedule(String name, Runnable task, long delay, long period) {
            if (name.startsWith("leader-epoch")) task.run();
            return (ScheduledFuture<?>) Proxy.newProxyInstance(Tasks.class.getClassLoader(),
                new Class<?>[] {ScheduledFuture.class}, (proxy, method, args) -> method.getReturnType() == boolean.class ? true : null);
        }
    }

    static class Clock implements Time {
        long now = 2_000_000;
        public long milliseconds() { return now; }
        public long nanoseconds() { return now * 1_000_000; }
        public void sleep(long ms) { now += ms; }
        public void waitObject(Object o, java.util.function.Supplier<Boolean> c, long d) { }
    }

    final Path root;
    int count;
    File dir;
    LogConfig config;
    Clock clock;
    UnifiedLog log;

    UnifiedLogOracle(Path root) { this.root = root; }

    void open(boolean clean, long recoveryPoint, long start) throws Exception {
        log = UnifiedLog.create(dir, config, start, recoveryPoint, new Tasks(), STATS, clock, 3_600_000,
            new ProducerStateManagerConfig(86_400_000, false), 600_000, new LogDirFailureChannel(1), clean,
            Optional.of(new Uuid(1, 2)));
    }

    static MemoryRecords records(String hex) {
        return MemoryRecords.readableRecords(ByteBuffer.wrap(HexFormat.of().parseHex(hex)));
    }

    static String appended(LogAppendInfo info) { return info.firstOffset() + "-" + info.lastOffset(); }

    String step(String[] f) throws Exception {
        switch (f[0]) {
            case "new": {
                if (log != null) log.closeHandlers();
                Map<String, String> settings = new HashMap<>();
                for (String pair : f[1].split(",")) settings.put(pair.split("=")[0], pair.split("=")[1].replace('+', ','));
                config = new LogConfig(settings);
                clock = new Clock();
                dir = Files.createDirectories(root.resolve(++count + "").resolve("topic-0")).toFile();
                open(true, 0, 0);
                return "";
            }
            case "leader": return appended(log.appendAsLeader(records(f[2]), Integer.parseInt(f[1])));
            case "marker": return appended(log.appendAsLeader(records(f[2]), Integer.parseInt(f[1]),
                AppendOrigin.COORDINATOR, RequestLocal.noCaching(), VerificationGuard.SENTINEL, (short) 1));
            case "follower": return appended(log.appendAsFollower(records(f[2]), Integer.parseInt(f[1])));
            case "roll": log.roll(); return "";
            case "truncate": {
                boolean cut = log.truncateTo(Long.parseLong(f[1]));
                log.updateHighWatermark(log.highWatermark()); // else transactions that ended long ago count again
                return cut + "";
            }
            case "restart_at": log.truncateFullyAndStartAt(Long.parseLong(f[1]), Optional.empty()); return "";
            case "delete_records": return log.maybeIncrementLogStartOffset(Long.parseLong(f[1]), LogStartOffsetIncrementReason.ClientRecordDeletion) + "";
            case "retain": return log.deleteOldSegments() + "";
            case "watermark": log.updateHighWatermark(Long.parseLong(f[1])); return "";
            case "epoch": log.assignEpochStartOffset(Integer.parseInt(f[1]), Long.parseLong(f[2])); return "";
            case "epoch_end": return log.endOffsetForEpoch(Integer.parseInt(f[1])).map(e -> e.epoch() + ":" + e.offset()).orElse("-1:-1");
            case "flush": log.flush(true); return "";
            case "tick": clock.sleep(Long.parseLong(f[1])); return "";
            case "reopen": {
                boolean clean = f[1].equals("clean");
                if (clean) log.close(); else log.closeHandlers();
                open(clean, Long.parseLong(f[2]), Long.parseLong(f[3]));
                return "";
            }
            case "time": return log.fetchOffsetByTimestamp(Long.parseLong(f[1]), Optional.empty()).timestampAndOffsetOpt()
                .map(t -> t.offset + ":" + t.timestamp + ":" + t.leaderEpoch.orElse(-1)).orElse("-");
            case "read": {
                FetchDataInfo info = log.read(Long.parseLong(f[1]), Integer.parseInt(f[2]), ISOLATIONS[Integer.parseInt(f[3])], f[4].equals("1"));
                // What does not fit is left out of answers since version 3 of Fetch.
                ByteBuffer data = ByteBuffer.allocate(info.firstEntryIncomplete ? 0 : info.records.sizeInBytes());
                if (data.hasRemaining() && info.records instanceof FileRecords file) file.readInto(data, 0);
                CRC32 crc = new CRC32();
                crc.update(data.rewind());
                return crc.getValue() + ":" + data.limit() + ":" + info.firstEntryIncomplete + ":" + info.abortedTransactions.filter(list -> data.hasArray() && data.limit() > 0).map(
                    list -> list.stream().map(t -> t.producerId() + "@" + t.firstOffset()).collect(Collectors.joining(","))).orElse("-");
            }
            default: throw new IllegalStateException(f[0]);
        }
    }

    String state() throws Exception {
        StringBuilder b = new StringBuilder();
        b.append(String.join(" ", List.of(log.logStartOffset() + "", log.logEndOffset() + "", log.highWatermark() + "",
            Math.max(log.lastStableOffset(), log.logStartOffset()) + "")));
        b.append("|").append(log.leaderEpochCache().epochEntries().stream().map(e -> e.epoch() + ":" + e.startOffset()).collect(Collectors.joining(" ")));
        List<String> segments = new ArrayList<>();
        for (LogSegment s : log.logSegments())
            segments.add(s.baseOffset() + ":" + s.size() + ":" + s.maxTimestampSoFar());
        b.append("|").append(String.join(" ", segments));
        b.append("|").append(log.activeProducers().stream().sorted(Comparator.comparingLong(DescribeProducersResponseData.ProducerState::producerId))
            .map(p -> p.producerId() + ":" + p.producerEpoch() + ":" + p.lastSequence() + ":" + p.currentTxnStartOffset() + ":" + p.coordinatorEpoch())
            .collect(Collectors.joining(" ")));
        return b.toString();
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), false);
        UnifiedLogOracle oracle = new UnifiedLogOracle(Path.of(args[0]));
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            String answer;
            try {
                answer = oracle.step(line.split("\\|", -1));
            } catch (Exception e) {
                answer = "ERR " + Errors.forException(e).code();
                if (args.length > 1) e.printStackTrace();
            }
            out.println("=" + answer + "|" + oracle.state());
        }
        out.flush();
    }
}
