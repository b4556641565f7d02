//! A pod in miniature: one network namespace with an app and a stand-in for the proxy, and a second one at the other
//! end of a cable, where the rest of the world lives.
//!
//! Every listener answers with one line that says who it is and which destination the kernel remembers, so that a
//! case reads like a table: dial this, be answered by that.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, getegid, geteuid, setresgid, setresuid},
};
use socket2::{Domain, SockRef, Socket, Type};

pub(crate) const POD: &str = "10.99.0.2";
pub(crate) const POD_V6: &str = "fd99::2";
pub(crate) const FAR: &str = "10.99.0.1";
pub(crate) const FAR_V6: &str = "fd99::1";

/// Where the app of the pod listens.
pub(crate) const APP_PORTS: [u16; 2] = [8080, 9100];
/// Where the far end listens.
pub(crate) const FAR_PORTS: [u16; 3] = [80, 22, 8005];

pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// For a dial that is meant to fail.
pub(crate) const SHORT: Duration = Duration::from_millis(200);

pub(crate) struct Pod {
    /// Whether uids other than 0 exist here.
    pub(crate) real_root: bool,
    far_end: Mutex<Child>,
    answers: Mutex<BufReader<std::process::ChildStdout>>,
}

impl Pod {
    /// Moves this process, which must have one thread, into a new namespace with a cable to another; or says why not.
    pub(crate) fn enter() -> Result<Self, String> {
        let real_root = geteuid().is_root();
        if real_root {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| format!("root may not make a network namespace: {e}"))?;
        } else {
            enter_user_namespace()?;
        }
        let mut far_end = Command::new(std::env::current_exe().unwrap())
            .arg("--far-end")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = Mutex::new(BufReader::new(far_end.stdout.take().unwrap()));
        let pid = far_end.id();
        let pod = Self {
            real_root,
            far_end: Mutex::new(far_end),
            answers,
        };
        assert_eq!(pod.answer(), "in its namespace");
        ip("link set lo up")?;
        ip("link add pod0 type veth peer name far0").map_err(|e| format!("this kernel has no veth: {e}"))?;
        ip(&format!("link set far0 netns {pid}")).unwrap();
        ip(&format!("addr add {POD}/24 dev pod0")).unwrap();
        ip(&format!("addr add {POD_V6}/64 dev pod0 nodad")).unwrap();
        ip("link set pod0 up").unwrap();
        assert_eq!(pod.ask("start"), "started");
        Ok(pod)
    }

    pub(crate) fn add_default_routes(&self) {
        ip(&format!("route add default via {FAR}")).unwrap();
        ip(&format!("-6 route add default via {FAR_V6}")).unwrap();
    }

    /// Starts the app and the two listeners of the proxy.
    pub(crate) fn start_listeners(&self) {
        for port in APP_PORTS {
            answer_on(port, "app");
        }
        answer_on(15_001, "outbound");
        answer_on(15_006, "inbound");
    }

    /// Dials out of the far end.
    pub(crate) fn dial_in(&self, target: &str) -> String {
        self.ask(&format!("dial {target}"))
    }

    fn ask(&self, question: &str) -> String {
        writeln!(self.far_end.lock().unwrap().stdin.as_mut().unwrap(), "{question}").unwrap();
        self.answer()
    }

    fn answer(&self) -> String {
        let mut line = String::new();
        self.answers.lock().unwrap().read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

/// Ends the far end with the case, whatever its outcome.
impl Drop for Pod {
    fn drop(&mut self) {
        let mut far_end = self
            .far_end
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let _ = far_end.kill();
        let _ = far_end.wait();
    }
}

fn enter_user_namespace() -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("neither root nor allowed to make a user namespace: {error}"))?;
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/self/{file}"), text).map_err(|error| format!("cannot write {file}: {error}"))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}

pub(crate) fn ip(command: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(command.split(' '))
        .output()
        .map_err(|e| format!("no `ip`: {e}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!(
            "ip {command}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

/// What a program prints.
pub(crate) fn printed(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Dials from this process, perhaps with a mark on its packets; the line the listener answered, or the error.
pub(crate) fn dial(target: &str, mark: Option<u32>) -> String {
    dial_from(None, target, mark, LIMIT)
}

/// Like [`dial`], from a port of one's choice, and for no longer than `limit`.
pub(crate) fn dial_from(port: Option<u16>, target: &str, mark: Option<u32>, limit: Duration) -> String {
    let target: SocketAddr = target.parse().unwrap();
    let attempt = || -> io::Result<String> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
        if let Some(port) = port {
            let own = if target.is_ipv6() { POD_V6 } else { POD };
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::new(own.parse().unwrap(), port).into())?;
        }
        if let Some(mark) = mark {
            socket.set_mark(mark)?;
        }
        socket.connect_timeout(&target.into(), limit)?;
        let mut line = String::new();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(limit))?;
        stream.read_to_string(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    attempt().unwrap_or_else(|error| format!("{:?}", error.kind()))
}

/// Whether one can listen there even without asking for the reuse of the port.
pub(crate) fn is_free(port: u16) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::new("0.0.0.0".parse().unwrap(), port).into())
        .is_ok()
}

/// Dials as another user, from a process of its own.
pub(crate) fn dial_by(uid: u32, target: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    printed(exe.to_str().unwrap(), &["--dial-as", &uid.to_string(), target])
        .trim_end()
        .to_owned()
}

/// The process behind [`dial_by`].
pub(crate) fn dial_as(uid: u32, target: SocketAddr) -> ExitCode {
    become_user(uid);
    println!("{}", dial(&target.to_string(), None));
    ExitCode::SUCCESS
}

/// Dials from `port` as another user and soon gives up.
pub(crate) fn fail_by(uid: u32, port: u16, target: &str) -> String {
    let exe = std::env::current_exe().unwrap();
    let (uid, port) = (uid.to_string(), port.to_string());
    printed(exe.to_str().unwrap(), &["--fail-as", &uid, &port, target])
        .trim_end()
        .to_owned()
}

/// The process behind [`fail_by`].
pub(crate) fn fail_as(uid: u32, port: u16, target: SocketAddr) -> ExitCode {
    become_user(uid);
    println!("{}", dial_from(Some(port), &target.to_string(), None, SHORT));
    ExitCode::SUCCESS
}

fn become_user(uid: u32) {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setresgid(group, group, group).unwrap();
    setresuid(user, user, user).unwrap();
}

/// Answers every connection to `port`, of either family, with who it is and where the connection was going.
fn answer_on(port: u16, name: &'static str) {
    for any in ["0.0.0.0", "::"] {
        let address = SocketAddr::new(any.parse::<IpAddr>().unwrap(), port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        socket.listen(16).unwrap();
        let listener = TcpListener::from(socket);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let socket = SockRef::from(&stream);
                let original = if address.is_ipv6() {
                    socket.original_dst_v6()
                } else {
                    socket.original_dst_v4()
                };
                // Where nothing was redirected the kernel may have nothing to remember.
                let original = original.map(|original| original.as_socket().unwrap());
                let original = original.or_else(|_| stream.local_addr()).unwrap();
                let _ = writeln!(stream, "{name} {original}");
            }
        });
    }
}

/// The process at the other end of the cable: does what it is told by lines on stdin, answers by lines on stdout.
pub(crate) fn far_end() -> ExitCode {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    println!("in its namespace");
    for line in io::stdin().lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            None => {
                assert_eq!(line, "start");
                ip("link set lo up").unwrap();
                ip(&format!("addr add {FAR}/24 dev far0")).unwrap();
                ip(&format!("addr add {FAR_V6}/64 dev far0 nodad")).unwrap();
                ip("link set far0 up").unwrap();
                for port in FAR_PORTS {
                    answer_on(port, "far");
                }
                echo_on(7000);
                println!("started");
            }
            Some((_, target)) => println!("{}", dial(target, None)),
        }
    }
    ExitCode::SUCCESS
}

/// Gives back every line, so that a connection can be shown to live on.
fn echo_on(port: u16) {
    let listener = TcpListener::bind((FAR, port)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            thread::spawn(move || {
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                    stream.write_all(line.as_bytes()).unwrap();
                    line.clear();
                }
            });
        }
    });
}
