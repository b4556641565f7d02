//! Whether anything but this proxy still runs in the pod, told by the sockets of the pod's network. Asked while the
//! proxy shuts down: an application that is still there may still want to call somebody. One that holds no TCP socket
//! cannot be seen.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Whether a program other than this one holds a TCP socket in this network namespace. Where the kernel does not say,
/// there is none.
#[must_use]
pub fn hold_sockets() -> bool {
    // The sockets first: one of ours that closes in between then looks like another's, and the next look corrects it.
    let tables: Vec<String> = ["/proc/self/net/tcp", "/proc/self/net/tcp6"]
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .collect();
    let ours = own(Path::new("/proc/self/fd"));
    tables.iter().any(|table| others(table, &ours))
}

/// Inodes of this process's sockets.
fn own(folder: &Path) -> HashSet<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .filter_map(|link| {
            let number = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            number.parse().ok()
        })
        .collect()
}

/// Whether a table of the kernel lists a socket that a program holds and that is not among `ours`. What only the kernel
/// holds, such as TIME-WAIT, has the inode 0.
fn others(table: &str, ours: &HashSet<u64>) -> bool {
    let inodes = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(9)?.parse().ok());
    inodes
        .into_iter()
        .any(|inode: u64| inode != 0 && !ours.contains(&inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:3AAC 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337        0 4001 1 0000000000000000 100 0 0 10 0
   1: 0500010A:1F90 0900010A:C350 06 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000000000000
   2: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4002 1 0000000000000000 100 0 0 10 0
";

    #[test]
    fn a_socket_of_another_program_tells_that_it_lives() {
        assert!(others(TABLE, &HashSet::from([4001])));
        assert!(!others(TABLE, &HashSet::from([4001, 4002])));
        assert!(!others("", &HashSet::new()));
        assert!(!others("not a table\nat all\n", &HashSet::new()));
    }

    #[test]
    fn own_sockets_are_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let before = own(Path::new("/proc/self/fd"));
        let port = format!(":{:04X} ", socket.local_addr().unwrap().port());
        let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
        let (head, rest) = table.split_once('\n').unwrap();
        let line = rest
            .lines()
            .find(|l| l.contains(&port) && l.contains(" 0A "))
            .unwrap();
        let table = format!("{head}\n{line}\n");
        assert!(!others(&table, &before));
        assert!(others(&table, &HashSet::new()));
    }
}
