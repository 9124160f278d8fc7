import java.util.Arrays;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * Kafka Streams with exactly_once_v2: counts words in a state store behind a repartition topic.
 *
 * <p>Arguments: bootstrap, application id, topic of lines, topic of counts, directory of the state.
 * Runs until it is killed; prints a line when it runs.
 */
public class WordCount {
    static Properties settings(String[] arguments) {
        Properties all = new Properties();
        all.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        all.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[1]);
        all.put(StreamsConfig.STATE_DIR_CONFIG, arguments[4]);
        all.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        all.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
        all.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0); // an output for each input
        all.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        all.put(StreamsConfig.consumerPrefix("max.poll.records"), 20);
        all.put(StreamsConfig.producerPrefix("linger.ms"), 0);
        // Who comes back after a kill has its partitions at once.
        all.put(StreamsConfig.consumerPrefix("group.instance.id"), "one");
        return all;
    }

    public static void main(String[] arguments) throws Exception {
        var builder = new StreamsBuilder();
        builder.stream(arguments[2], Consumed.with(Serdes.String(), Serdes.String()))
                .flatMapValues(line -> Arrays.asList(line.split(" ")))
                .groupBy((key, word) -> word, Grouped.with(Serdes.String(), Serdes.String()))
                .count(
                        Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts")
                                .withKeySerde(Serdes.String())
                                .withValueSerde(Serdes.Long()))
                .toStream()
                .mapValues(String::valueOf)
                .to(arguments[3], Produced.with(Serdes.String(), Serdes.String()));
        var streams = new KafkaStreams(builder.build(), settings(arguments));
        var running = new CountDownLatch(1);
        streams.setStateListener(
                (now, before) -> {
                    if (now == KafkaStreams.State.RUNNING) {
                        running.countDown();
                    }
                });
        streams.start();
        running.await();
        System.out.println("running");
        Thread.currentThread().join();
    }
}
