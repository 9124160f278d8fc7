import java.io.*;
import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.requests.*;
import org.apache.kafka.common.utils.*;
import org.apache.kafka.server.record.BrokerCompressionType;
import org.apache.kafka.storage.internals.log.*;

/**
 * Asks Apache Kafka's own LogValidator: one question a line, one answer a line.
 *
 * A question: version|compression.type|compact|timestamp type|before.max.ms|after.max.ms|
 * max.message.bytes|segment.bytes|now|records in hexadecimal digits.
 * An answer: OK|max timestamp|records|batch in hexadecimal digits, or ERR|code|message|index:message...
 */
public class LogValidatorOracle {
    static final LogValidator.MetricsRecorder METRICS = new LogValidator.MetricsRecorder() {
        public void recordInvalidMagic() { }
        public void recordInvalidOffset() { }
        public void recordInvalidSequence() { }
        public void recordInvalidChecksums() { }
        public void recordNoKeyCompactedTopic() { }
    };

    static Compression target(String name, CompressionType source) {
        BrokerCompressionType type = BrokerCompressionType.forName(name);
        Optional<Compression> configured = switch (type) {
            case GZIP -> Optional.of(Compression.gzip().build());
            case LZ4 -> Optional.of(Compression.lz4().build());
            case ZSTD -> Optional.of(Compression.zstd().build());
            case SNAPPY -> Optional.of(Compression.snappy().build());
            case UNCOMPRESSED -> Optional.of(Compression.NONE);
            case PRODUCER -> Optional.empty();
        };
        return BrokerCompressionType.targetCompression(configured, source);
    }

    static String run(String[] f) {
        short version = Short.parseShort(f[0]);
        boolean compact = f[2].equals("1");
        TimestampType type = f[3].equals("CreateTime") ? TimestampType.CREATE_TIME : TimestampType.LOG_APPEND_TIME;
        long before = Long.parseLong(f[4]), after = Long.parseLong(f[5]);
        int maxMessage = Integer.parseInt(f[6]), segment = Integer.parseInt(f[7]);
        long now = Long.parseLong(f[8]);
        byte[] data = HexFormat.of().parseHex(f.length > 9 ? f[9] : "");
        try {
            MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(data));
            ProduceRequest.validateRecords(version, records);
            CompressionType source = CompressionType.NONE;
            int valid = 0;
            for (MutableRecordBatch batch : records.batches()) {
                if (batch.baseOffset() != 0) throw new InvalidRecordException("base offset");
                if (batch.sizeInBytes() > maxMessage) throw new RecordTooLargeException("too large");
                if (!batch.isValid()) throw new CorruptRecordException("crc");
                valid += batch.sizeInBytes();
                CompressionType c = CompressionType.forId(batch.compressionType().id);
                if (c != CompressionType.NONE) source = c;
            }
            ByteBuffer trimmed = ByteBuffer.wrap(data);
            trimmed.limit(valid);
            records = MemoryRecords.readableRecords(trimmed);
            MockTime time = new MockTime(now);
            PrimitiveRef.LongRef offset = PrimitiveRef.ofLong(0);
            LogValidator validator = new LogValidator(records, new TopicPartition("t", 0), time, source,
                target(f[1], source), compact, (byte) 2, type, before, after, 0, AppendOrigin.CLIENT);
            LogValidator.ValidationResult r = validator.validateMessagesAndAssignOffsets(offset, METRICS, BufferSupplier.NO_CACHING);
            if (r.messageSizeMaybeChanged())
                for (RecordBatch batch : r.validatedRecords().batches())
                    if (batch.sizeInBytes() > maxMessage) throw new RecordTooLargeException("too large after");
            if (r.validatedRecords().sizeInBytes() > segment) throw new RecordBatchTooLargeException("segment");
            ByteBuffer out = r.validatedRecords().buffer().duplicate();
            byte[] bytes = new byte[out.remaining()];
            out.get(bytes);
            return "OK|" + r.maxTimestampMs() + "|" + (offset.value) + "|" + HexFormat.of().formatHex(bytes);
        } catch (RecordValidationException e) {
            StringBuilder b = new StringBuilder("ERR|" + Errors.forException(e.invalidException()).code() + "|" + e.invalidException().getMessage());
            for (ProduceResponse.RecordError error : e.recordErrors()) b.append("|").append(error.batchIndex).append(":").append(error.message);
            return b.toString();
        } catch (Throwable e) {
            return "ERR|" + Errors.forException(e).code() + "|" + String.valueOf(e).replace('\n', ' ').replace('|', ' ');
        }
    }

    static class MockTime implements Time {
        final long now;
        MockTime(long now) { this.now = now; }
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
    }
}
