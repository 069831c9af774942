import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Publishes the events with Kafka's Java client, as `StandardMessage`, once with each compression. All events of a
 * topic are one batch, because it is the batch that is compressed.
 *
 * <p>Usage: java Produce.java BROKER EVENTS
 */
public class Produce {
  private static final ObjectMapper JSON = new ObjectMapper();

  public static void main(String[] arguments) throws Exception {
    String template = Files.readString(Path.of(arguments[1]));
    for (String compression : new String[] {"none", "gzip", "snappy", "lz4", "zstd"}) {
      String topic = "java-" + compression;
      Map<String, Object> settings =
          Map.of(
              "bootstrap.servers", arguments[0],
              "client.id", "user-service",
              "compression.type", compression,
              "linger.ms", "60000",
              "batch.size", "1000000");
      StringSerializer strings = new StringSerializer();
      try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings, strings, strings)) {
        for (JsonNode event : JSON.readTree(template.replace("PRODUCER", topic))) {
          String key = event.get("key").asText();
          ProducerRecord<String, String> record = new ProducerRecord<>(topic, key, standardMessage(event));
          record.headers().add("correlationId", event.get("correlationId").asText().getBytes(StandardCharsets.UTF_8));
          producer.send(record);
        }
        producer.flush();
      }
    }
  }

  private static String standardMessage(JsonNode event) throws Exception {
    return JSON.writeValueAsString(
        JSON.createObjectNode()
            .put("messageId", event.get("id").asText())
            .put("messageType", event.get("type").asText() + "V1")
            .put("timestamp", event.get("time").asText())
            .put("sourceService", event.get("source").asText())
            .putNull("correlationId")
            .put("envelopeVersion", "1.0")
            .put("partitionKey", event.get("key").asText())
            .set("payload", event.get("payload")));
  }
}
