//! The command line of Hauberk's users.

fn main() {}
