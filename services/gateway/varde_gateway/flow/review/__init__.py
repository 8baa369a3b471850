"""The audit log as it is read: searches, timelines, evidence, exports, archives, and erasure under law."""
