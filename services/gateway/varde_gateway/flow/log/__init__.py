"""The audit log as it grows: checkpoints, witnesses, and what is done about a log with two histories."""
