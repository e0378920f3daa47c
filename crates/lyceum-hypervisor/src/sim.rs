//! A hypervisor without machines, for tests and the simulator.
