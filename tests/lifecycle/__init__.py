"""Long proofs that models come and go without a trace: real daemon, real processes, real faults."""
