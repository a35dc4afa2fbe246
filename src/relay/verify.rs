//! Redis compared with the log.
