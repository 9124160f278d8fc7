import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TransactionDescription;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Consume, transform, produce: each input becomes one output, some transactions are aborted, a
 * second producer takes over the transactional id, transactions time out.
 *
 * <p>Arguments: bootstrap, prefix of the names, group protocol. Fails with an exception.
 *
 * <p>Producers flush before they commit: without it this client now and then sends EndTxn before the
 * records at level 2 (its sender looks for records before it takes the lock to look for EndTxn).
 */
public class Transactions {
    static final int RECORDS = 200;
    static final int PARTITIONS = 3;
    static final Duration POLL = Duration.ofMillis(500);

    static String bootstrap;
    static String input;
    static String output;
    static String group;
    static String protocol;
    static String transactionalId;

    static Map<String, Object> settings(Object... pairs) {
        Map<String, Object> all = new HashMap<>();
        all.put("bootstrap.servers", bootstrap);
        for (int at = 0; at < pairs.length; at += 2) {
            all.put((String) pairs[at], pairs[at + 1]);
        }
        return all;
    }

    static KafkaProducer<String, String> producer(Object... pairs) {
        var all = settings(pairs);
        all.putIfAbsent("linger.ms", 0);
        return new KafkaProducer<>(all, new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(Object... pairs) {
        var all = settings(pairs);
        all.put("auto.offset.reset", "earliest");
        all.put("enable.auto.commit", false);
        all.putIfAbsent("isolation.level", "read_committed");
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static Map<TopicPartition, OffsetAndMetadata> following(ConsumerRecords<String, String> records) {
        return records.nextOffsets();
    }

    /** Copies the input; every third transaction is aborted and done again. */
    static int copy(Admin admin) throws Exception {
        int transactions = 0;
        try (var producer = producer("transactional.id", transactionalId);
                var consumer =
                        consumer(
                                "group.id", group,
                                "group.protocol", protocol,
                                "max.poll.records", 10)) {
            producer.initTransactions();
            consumer.subscribe(List.of(input));
            for (int copied = 0; copied < RECORDS; ) {
                ConsumerRecords<String, String> records = consumer.poll(POLL);
                if (records.isEmpty()) {
                    continue;
                }
                producer.beginTransaction();
                for (var record : records) {
                    producer.send(
                            new ProducerRecord<>(
                                    output, record.key(), record.value().toUpperCase()));
                }
                producer.sendOffsetsToTransaction(following(records), consumer.groupMetadata());
                if (++transactions % 3 == 0) {
                    producer.flush();
                    producer.abortTransaction();
                    var committed = consumer.committed(consumer.assignment());
                    for (var each : committed.entrySet()) {
                        long next = each.getValue() == null ? 0 : each.getValue().offset();
                        consumer.seek(each.getKey(), next);
                    }
                } else {
                    producer.flush();
                    producer.commitTransaction();
                    copied += records.count();
                }
            }
            producer.beginTransaction();
            producer.abortTransaction();
            producer.beginTransaction();
            producer.commitTransaction();
        }
        return transactions;
    }

    static List<String> read(String isolation) {
        List<String> found = new ArrayList<>();
        try (var consumer = consumer("isolation.level", isolation)) {
            List<TopicPartition> all =
                    IntStream.range(0, PARTITIONS)
                            .mapToObj(index -> new TopicPartition(output, index))
                            .toList();
            consumer.assign(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            while (all.stream().anyMatch(each -> consumer.position(each) < ends.get(each))) {
                consumer.poll(POLL).forEach(record -> found.add(record.value()));
            }
        }
        return found.stream().sorted().toList();
    }

    static TransactionDescription description(Admin admin) throws Exception {
        return admin.describeTransactions(List.of(transactionalId))
                .description(transactionalId)
                .get();
    }

    /** The first producer is told that it was fenced, whatever it tries. */
    static void takeOver() {
        try (var first = producer("transactional.id", transactionalId);
                var second = producer("transactional.id", transactionalId)) {
            first.initTransactions();
            first.beginTransaction();
            first.send(new ProducerRecord<>(output, "k", "of a zombie"));
            first.flush();
            second.initTransactions();
            second.beginTransaction();
            second.send(new ProducerRecord<>(output, "k", "of its heir"));
            KafkaException fenced = null;
            try {
                first.commitTransaction();
            } catch (KafkaException error) {
                fenced = error;
            }
            check(fenced != null, "the zombie has committed");
            System.out.println("zombie: " + fenced.getClass().getSimpleName());
            second.flush();
            second.commitTransaction();
        }
    }

    /** The transaction is aborted by the broker; its producer is told and can abort and go on. */
    static void timeOut(Admin admin) throws Exception {
        try (var late =
                producer("transactional.id", transactionalId, "transaction.timeout.ms", 1000)) {
            late.initTransactions();
            late.beginTransaction();
            late.send(new ProducerRecord<>(output, "k", "too late"));
            late.flush();
            while (!description(admin).state().toString().equals("CompleteAbort")) {
                Thread.sleep(100);
            }
            KafkaException refused = null;
            try {
                late.send(new ProducerRecord<>(output, "k", "later")).get();
                late.commitTransaction();
            } catch (Exception error) {
                refused = new KafkaException(error);
            }
            check(refused != null, "a transaction outlived its timeout");
            late.abortTransaction();
            late.beginTransaction();
            late.send(new ProducerRecord<>(output, "k", "in time"));
            late.flush();
            late.commitTransaction();
        }
    }

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        input = arguments[1] + "-in";
        output = arguments[1] + "-out";
        group = arguments[1] + "-group";
        transactionalId = arguments[1] + "-tx";
        protocol = arguments[2];
        try (var admin = Admin.create(settings())) {
            admin.createTopics(
                            List.of(
                                    new NewTopic(input, PARTITIONS, (short) 1),
                                    new NewTopic(output, PARTITIONS, (short) 1)))
                    .all()
                    .get();
            var level =
                    admin.describeFeatures()
                            .featureMetadata()
                            .get()
                            .finalizedFeatures()
                            .get("transaction.version");
            check(level != null && level.maxVersionLevel() == 2, "level 2 is not announced: " + level);
            try (var producer = producer()) {
                for (int number = 0; number < RECORDS; number++) {
                    producer.send(new ProducerRecord<>(input, "k" + number, "v" + number));
                }
            }
            int transactions = copy(admin);
            List<String> expected =
                    IntStream.range(0, RECORDS).mapToObj(number -> "V" + number).sorted().toList();
            check(read("read_committed").equals(expected), "not each input is there exactly once");
            check(read("read_uncommitted").size() > RECORDS, "nothing was aborted");
            // Every end bumps the epoch, which is what level 2 is.
            check(
                    description(admin).producerEpoch() >= transactions,
                    transactions + " transactions, " + description(admin));
            takeOver();
            timeOut(admin);
            List<String> later = new ArrayList<>(read("read_committed"));
            later.removeAll(expected);
            check(later.equals(List.of("in time", "of its heir")), "found " + later);
            System.out.println("each input exactly once");
        }
    }
}
