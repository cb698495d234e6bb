"""From a raw interaction log to a prepared folder."""
