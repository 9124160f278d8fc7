import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Two consumers in one group, classic or consumer protocol: they share a topic, read it, commit; one
 * leaves, the other gets everything; a static member comes back to what it had.
 *
 * <p>Arguments: bootstrap, topic (there, six partitions), group, protocol. Prints one line a step.
 */
public class GroupConsumers {
    static final int PARTITIONS = 6;
    static final int RECORDS = 60;
    static final long PATIENCE_MS = 60_000;

    static String bootstrap;
    static String topic;
    static String group;
    static String protocol;

    static class Member implements ConsumerRebalanceListener, AutoCloseable {
        final KafkaConsumer<byte[], byte[]> consumer;
        final List<ConsumerRecord<byte[], byte[]>> read = new ArrayList<>();
        int lost = 0;
        int revoked = 0;

        Member(String instance) {
            Map<String, Object> settings = new HashMap<>();
            settings.put("bootstrap.servers", bootstrap);
            settings.put("group.id", group);
            settings.put("group.protocol", protocol);
            settings.put("auto.offset.reset", "earliest");
            settings.put("enable.auto.commit", "false");
            settings.put("key.deserializer", ByteArrayDeserializer.class.getName());
            settings.put("value.deserializer", ByteArrayDeserializer.class.getName());
            if (instance != null) settings.put("group.instance.id", instance);
            if (protocol.equals("classic")) {
                settings.put("heartbeat.interval.ms", "300");
                settings.put(
                    "partition.assignment.strategy",
                    "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
            }
            consumer = new KafkaConsumer<>(settings);
            consumer.subscribe(List.of(topic), this);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            revoked += partitions.size();
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            lost += partitions.size();
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}

        TreeSet<Integer> owned() {
            TreeSet<Integer> owned = new TreeSet<>();
            for (TopicPartition each : consumer.assignment()) owned.add(each.partition());
            return owned;
        }

        void poll() {
            consumer.poll(Duration.ofMillis(50)).forEach(read::add);
        }

        @Override
        public void close() {
            consumer.close();
        }
    }

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        topic = arguments[1];
        group = arguments[2];
        protocol = arguments[3];
        Member first = new Member(null);
        until("the first owns all", () -> first.owned().size() == PARTITIONS, first);
        Member second = new Member("static-1");
        until(
            "both own a half",
            () -> first.owned().size() == 3 && second.owned().size() == 3,
            first, second);
        require(disjoint(first.owned(), second.owned()), "no partition has two owners");
        produce();
        until(
            "every record is read", () -> first.read.size() + second.read.size() >= RECORDS,
            first, second);
        first.consumer.commitSync();
        second.consumer.commitSync();
        requireOffsets();
        TreeSet<Integer> kept = second.owned();
        int revokedBefore = first.revoked;
        second.close();
        Member again = new Member("static-1");
        until("the static member is back", () -> again.owned().equals(kept), first, again);
        require(first.revoked == revokedBefore, "nobody else noticed");
        first.close();
        until("the last one owns all", () -> again.owned().size() == PARTITIONS, again);
        require(again.read.isEmpty(), "no record is read twice");
        require(first.lost + second.lost + again.lost == 0, "no partition was lost");
        again.close();
    }

    static void produce() throws Exception {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", bootstrap,
            "key.serializer", ByteArraySerializer.class.getName(),
            "value.serializer", ByteArraySerializer.class.getName());
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            for (int number = 0; number < RECORDS; number++) {
                byte[] value = Integer.toString(number).getBytes();
                producer.send(new ProducerRecord<>(topic, number % PARTITIONS, null, value)).get();
            }
        }
    }

    static void requireOffsets() {
        try (Member asking = new Member(null)) {
            TreeSet<TopicPartition> all = new TreeSet<>((a, b) -> a.partition() - b.partition());
            for (int number = 0; number < PARTITIONS; number++) {
                all.add(new TopicPartition(topic, number));
            }
            asking.consumer.unsubscribe();
            Map<Integer, Long> found = new TreeMap<>();
            asking.consumer.committed(all).forEach((p, o) -> found.put(p.partition(), o.offset()));
            require(
                found.values().stream().allMatch(offset -> offset == RECORDS / PARTITIONS)
                    && found.size() == PARTITIONS,
                "all offsets are committed: " + found);
        }
    }

    static boolean disjoint(TreeSet<Integer> one, TreeSet<Integer> other) {
        return one.stream().noneMatch(other::contains);
    }

    static void until(String what, BooleanSupplier reached, Member... polled) {
        long began = System.nanoTime();
        while (!reached.getAsBoolean()) {
            for (Member each : polled) each.poll();
            if ((System.nanoTime() - began) / 1_000_000 > PATIENCE_MS) {
                StringBuilder state = new StringBuilder();
                for (Member each : polled) state.append(each.owned()).append(each.read.size());
                throw new IllegalStateException("not in time: " + what + " " + state);
            }
        }
        System.out.println(what + " after " + (System.nanoTime() - began) / 1_000_000 + " ms");
    }

    static void require(boolean holds, String what) {
        if (!holds) throw new IllegalStateException("not true: " + what);
        System.out.println(what);
    }
}
