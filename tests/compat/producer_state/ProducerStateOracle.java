import java.io.*;
import java.lang.reflect.Method;
import java.util.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.storage.internals.log.*;

/**
 * Leads Apache Kafka's own ProducerStateManager through a history: one history a line, its steps
 * separated by ";", the first of them a directory for snapshots. A step and its fields:
 *
 * D producer epoch sequence count transactional origin timestamp: a batch at the log's end
 * M producer epoch coordinator-epoch abort version timestamp: a marker at the log's end
 * H offset: the high watermark; E now: expiry; S: a snapshot; R start end now: truncate and reload
 * L offset: the log start
 *
 * Answers what became of every step, and the state after it, a line for the whole history.
 */
public class ProducerStateOracle {
    static final TopicPartition PARTITION = new TopicPartition("topic", 0);
    static Method findDuplicate;

    static String state(ProducerStateManager manager) {
        StringBuilder out = new StringBuilder();
        out.append(manager.mapEndOffset()).append(' ')
            .append(manager.firstUnstableOffset().map(o -> o.messageOffset).orElse(-1L));
        for (ProducerStateEntry entry : new TreeMap<>(manager.activeProducers()).values()) {
            out.append(" [").append(entry.producerId()).append(' ').append(entry.producerEpoch())
                .append(' ').append(entry.coordinatorEpoch()).append(' ').append(entry.lastTimestamp())
                .append(' ').append(entry.currentTxnFirstOffset().orElse(-1));
            for (BatchMetadata batch : entry.batchMetadata())
                out.append(' ').append(batch.firstSeq()).append('-').append(batch.lastSeq())
                    .append('@').append(batch.firstOffset()).append('-').append(batch.lastOffset());
            out.append(']');
        }
        return out.toString();
    }

    static String append(ProducerStateManager manager, MemoryRecords records, AppendOrigin origin, short version) {
        MutableRecordBatch batch = records.batches().iterator().next();
        try {
            Optional<ProducerStateEntry> entry = manager.lastEntry(batch.producerId());
            if (origin == AppendOrigin.CLIENT && entry.isPresent()) {
                Optional<?> duplicate = (Optional<?>) findDuplicate.invoke(entry.get(), batch);
                if (duplicate.isPresent()) return "DUPLICATE " + ((BatchMetadata) duplicate.get()).firstOffset();
            }
            ProducerAppendInfo info = manager.prepareUpdate(batch.producerId(), origin);
            Optional<CompletedTxn> completed = info.append(batch, Optional.empty(), version);
            manager.update(info);
            manager.updateMapEndOffset(batch.lastOffset() + 1);
            String stable = "";
            if (completed.isPresent()) {
                stable = " " + completed.get().firstOffset() + " " + manager.lastStableOffset(completed.get());
                manager.completeTxn(completed.get());
            }
            return "OK" + stable;
        } catch (Exception e) {
            return Errors.forException(e).name();
        }
    }

    static String step(ProducerStateManager manager, String[] f) throws Exception {
        long end = manager.mapEndOffset();
        switch (f[0]) {
            case "D": {
                SimpleRecord[] records = new SimpleRecord[Integer.parseInt(f[4])];
                Arrays.fill(records, new SimpleRecord(Long.parseLong(f[7]), "v".getBytes()));
                long producer = Long.parseLong(f[1]);
                short epoch = Short.parseShort(f[2]);
                int sequence = Integer.parseInt(f[3]);
                MemoryRecords batch = f[5].equals("1")
                    ? MemoryRecords.withTransactionalRecords(end, Compression.NONE, producer, epoch, sequence, 0, records)
                    : MemoryRecords.withIdempotentRecords(end, Compression.NONE, producer, epoch, sequence, 0, records);
                return append(manager, batch, AppendOrigin.valueOf(f[6]), (short) 0);
            }
            case "M":
                return append(manager, MemoryRecords.withEndTransactionMarker(end, Long.parseLong(f[6]), 0,
                    Long.parseLong(f[1]), Short.parseShort(f[2]), new EndTransactionMarker(
                        f[4].equals("1") ? ControlRecordType.ABORT : ControlRecordType.COMMIT,
                        Integer.parseInt(f[3]))), AppendOrigin.COORDINATOR, Short.parseShort(f[5]));
            case "H": manager.onHighWatermarkUpdated(Long.parseLong(f[1])); return "OK";
            case "E": manager.removeExpiredProducers(Long.parseLong(f[1])); return "OK";
            case "S": manager.takeSnapshot(); return "OK";
            case "L": manager.onLogStartOffsetIncremented(Long.parseLong(f[1])); return "OK";
            case "R":
                manager.truncateAndReload(Long.parseLong(f[1]), Long.parseLong(f[2]), Long.parseLong(f[3]));
                return "OK";
            default: throw new IllegalArgumentException(f[0]);
        }
    }

    public static void main(String[] args) throws Exception {
        findDuplicate = ProducerStateEntry.class.getDeclaredMethod("findDuplicateBatch", RecordBatch.class);
        findDuplicate.setAccessible(true);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), true);
        for (String line; (line = in.readLine()) != null; ) {
            String[] steps = line.split(";");
            ProducerStateManager manager = new ProducerStateManager(PARTITION, new File(steps[0]), 900000,
                new ProducerStateManagerConfig(10000, false), Time.SYSTEM);
            StringBuilder answers = new StringBuilder();
            for (int i = 1; i < steps.length; i++)
                answers.append(step(manager, steps[i].split(" "))).append(" | ").append(state(manager)).append(';');
            out.println(answers);
        }
    }
}
