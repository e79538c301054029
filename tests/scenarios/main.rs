//! Scenarios through real processes, real sockets and real files, driven by the official clients.
//!
//! One binary, so that everything is linked once. `cluster` runs ours, `driver` runs theirs, the rest are scenarios by subject.
//! Those in `behaviour` hold for FerroMQ and for Java's servers alike.

mod bad_input;
mod behaviour;
mod clients;
mod cluster;
mod crash;
mod driver;
mod endurance;
mod java_server;
mod mqadmin;
mod process;
mod push_group;
mod replication;
mod retention;
mod routes;
mod stop;
mod store_directory;
mod tables;
