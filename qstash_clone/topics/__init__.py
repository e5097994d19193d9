"""Topic logs: what the Kafka REST APIs write to and read from, see docs/explanation/topics.md."""
