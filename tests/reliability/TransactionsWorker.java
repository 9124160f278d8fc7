import java.io.FileOutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * transactions_worker.py with Kafka's own clients, whose transactions are of level 2 where the
 * broker finalizes it. The journal and the values have the same form.
 */
public class TransactionsWorker {
    static final int FENCED_STATUS = 3;
    static volatile boolean stopping = false;

    final String name;
    final List<TopicPartition> input;
    final String outputTopic;
    final int outputPartitions;
    final FileOutputStream journal;
    final KafkaProducer<byte[], byte[]> producer;
    final KafkaConsumer<byte[], byte[]> consumer;
    final Random source;
    int count = 0;

    TransactionsWorker(String[] args) throws Exception {
        name = args[0];
        source = new Random(name.hashCode());
        input =
                Arrays.stream(args[5].split(","))
                        .map(each -> new TopicPartition(args[4], Integer.parseInt(each)))
                        .collect(Collectors.toList());
        outputTopic = args[6];
        outputPartitions = Integer.parseInt(args[7]);
        journal = new FileOutputStream(args[9], true);
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", args[1]);
        settings.put("reconnect.backoff.ms", 20);
        settings.put("reconnect.backoff.max.ms", 100);
        settings.put("retry.backoff.ms", 20);
        settings.put("retry.backoff.max.ms", 100);
        Map<String, Object> ofProducer = new HashMap<>(settings);
        ofProducer.put("transactional.id", args[2]);
        ofProducer.put("transaction.timeout.ms", Integer.parseInt(args[8]));
        ofProducer.put("max.block.ms", 5000);
        ofProducer.put("linger.ms", 0);
        producer =
                new KafkaProducer<>(
                        ofProducer, new ByteArraySerializer(), new ByteArraySerializer());
        Map<String, Object> ofConsumer = new HashMap<>(settings);
        ofConsumer.put("group.id", args[3]);
        ofConsumer.put("enable.auto.commit", false);
        ofConsumer.put("isolation.level", "read_committed");
        ofConsumer.put("auto.offset.reset", "none");
        ofConsumer.put("fetch.max.wait.ms", 50);
        ofConsumer.put("max.poll.records", 8);
        consumer =
                new KafkaConsumer<>(
                        ofConsumer, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    void note(String event, String what) throws Exception {
        journal.write((event + " " + what + "\n").getBytes(StandardCharsets.UTF_8));
    }

    /** What has timed out may be tried again, as the producer's documentation says. */
    static void untilDone(Runnable step) {
        while (true) {
            try {
                step.run();
                return;
            } catch (TimeoutException again) {
            }
        }
    }

    void rewind() {
        untilDone(
                () -> {
                    Map<TopicPartition, OffsetAndMetadata> found =
                            consumer.committed(Set.copyOf(input));
                    for (TopicPartition each : input) {
                        OffsetAndMetadata at = found.get(each);
                        consumer.seek(each, at == null ? 0 : at.offset());
                    }
                });
    }

    void run() throws Exception {
        untilDone(producer::initTransactions);
        consumer.assign(input);
        rewind();
        note("ready", name);
        while (!stopping) {
            List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
            consumer.poll(Duration.ofMillis(100)).forEach(records::add);
            if (!records.isEmpty()) {
                transact(records);
            }
        }
    }

    void transact(List<ConsumerRecord<byte[], byte[]>> records) throws Exception {
        String transaction = name + "." + ++count;
        note("begun", transaction);
        try {
            write(transaction, records);
            if (source.nextDouble() < 0.1) {
                abort(transaction);
                return;
            }
            untilDone(producer::commitTransaction);
            note("committed", transaction);
        } catch (ProducerFencedException | InvalidProducerEpochException fenced) {
            throw fenced;
        } catch (KafkaException refused) {
            System.err.println(transaction + ": " + refused);
            abort(transaction);
        }
    }

    void write(String transaction, List<ConsumerRecord<byte[], byte[]>> records) {
        producer.beginTransaction();
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (ConsumerRecord<byte[], byte[]> record : records) {
            offsets.put(
                    new TopicPartition(record.topic(), record.partition()),
                    new OffsetAndMetadata(record.offset() + 1));
            String value =
                    transaction
                            + "|"
                            + records.size()
                            + "|"
                            + record.partition()
                            + "|"
                            + record.offset();
            producer.send(
                    new ProducerRecord<>(
                            outputTopic,
                            (int) (record.offset() % outputPartitions),
                            null,
                            value.getBytes(StandardCharsets.UTF_8)));
        }
        untilDone(() -> producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata()));
    }

    void abort(String transaction) throws Exception {
        untilDone(producer::abortTransaction);
        note("aborted", transaction);
        rewind();
    }

    public static void main(String[] args) throws Exception {
        Thread main = Thread.currentThread();
        Runtime.getRuntime()
                .addShutdownHook(
                        new Thread(
                                () -> {
                                    stopping = true;
                                    try {
                                        main.join();
                                    } catch (InterruptedException ended) {
                                        Thread.currentThread().interrupt();
                                    }
                                }));
        TransactionsWorker worker = new TransactionsWorker(args);
        try {
            worker.run();
        } catch (KafkaException fatal) {
            System.err.println("fenced: " + fatal);
            worker.note("fenced", worker.name);
            Runtime.getRuntime().halt(FENCED_STATUS);
        }
    }
}
