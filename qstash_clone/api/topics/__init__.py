"""The Kafka REST APIs: Upstash's, and the two producer APIs of IBM Event Streams."""
