//! Runs `nft` and the iptables programs: one at a time, input by stdin, with a time limit.
//!
//! Called by the backends of [`super`]. Never goes through a shell, and never waits longer than [`LIMIT`]: a program
//! that hangs (the lock of iptables, a kernel module that cannot be loaded) must become an error one can read, not a
//! pod that starts for ever.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use super::InterceptionError;

/// How long one command may take. The lock of iptables is waited for 5 s at most, see `iptables.rs`.
const LIMIT: Duration = Duration::from_secs(15);

/// The words of all programs for missing rights.
const FORBIDDEN: [&str; 3] = ["Operation not permitted", "Permission denied", "must be root"];
/// Their words for what the kernel does not have: a protocol, a table, a chain type, an expression. Our scripts name
/// nothing else that could be missing.
const LACKING: [&str; 6] = [
    "Operation not supported",
    "Protocol not supported",
    "No such file or directory",
    "Table does not exist",
    "No chain/target/match by that name",
    "kernel needs to be upgraded",
];

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `program`; `Ok(None)` when it is not installed. A failed run is still `Ok`: some callers ask just to know.
pub(crate) fn run(program: &str, args: &[&str], input: &str) -> Result<Option<Output>, InterceptionError> {
    run_within(LIMIT, program, args, input)
}

/// Like [`run`], with every outcome but success an error.
pub(crate) fn must(program: &str, args: &[&str], input: &str) -> Result<String, InterceptionError> {
    let output = run(program, args, input)?.ok_or_else(|| InterceptionError::NotInstalled {
        program: program.to_owned(),
    })?;
    if output.success {
        Ok(output.stdout)
    } else {
        Err(failure(program, args, &output))
    }
}

/// Sorts a failure by its text: "you may not" needs another remedy than everything else.
pub(crate) fn failure(program: &str, args: &[&str], output: &Output) -> InterceptionError {
    let command = std::iter::once(program)
        .chain(args.iter().copied())
        .collect::<Vec<_>>()
        .join(" ");
    let said = output.stderr.trim().to_owned();
    let says = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
    if says(&FORBIDDEN) {
        InterceptionError::NotPermitted { command, said }
    } else if said.contains("xtables.lock") {
        InterceptionError::LockUnavailable { command, said }
    } else if says(&LACKING) {
        InterceptionError::KernelLacks { command, said }
    } else {
        InterceptionError::CommandFailed { command, said }
    }
}

fn run_within(
    limit: Duration,
    program: &str,
    args: &[&str],
    input: &str,
) -> Result<Option<Output>, InterceptionError> {
    let failed = |what: &str, error: io::Error| InterceptionError::CommandFailed {
        command: program.to_owned(),
        said: format!("{what}: {error}"),
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("it could not be started", error)),
    };
    // The reading threads end when the program closes its side, which it does at the latest when it is killed.
    let stdout = collect(child.stdout.take().expect("stdout is piped"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    feed(&mut child, input);

    let (Ok(stdout), Ok(stderr)) = (stdout.recv_timeout(limit), stderr.recv_timeout(limit)) else {
        // Killing fails only if the program has ended meanwhile; it was too slow all the same.
        let _ = child.kill();
        let _ = child.wait();
        return Err(InterceptionError::TimedOut {
            program: program.to_owned(),
            seconds: limit.as_secs(),
        });
    };
    let status = child
        .wait()
        .map_err(|error| failed("its end could not be awaited", error))?;
    Ok(Some(Output {
        success: status.success(),
        stdout,
        stderr,
    }))
}

/// A program that ends without reading its input closes the pipe; what it says on stderr is the better error.
fn feed(child: &mut Child, input: &str) {
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_owned();
    // In a thread, because a program that does not read would block us for ever on a long script.
    thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
}

fn collect(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing; nobody waits any more if the send fails.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_reaches_the_program_and_its_output_comes_back() {
        let output = run("cat", &[], "one\ntwo\n").unwrap().unwrap();
        assert!(output.success);
        assert_eq!(output.stdout, "one\ntwo\n");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_apart_from_one_that_fails() {
        assert!(run("hauberk-no-such-program", &[], "").unwrap().is_none());
        let output = run("sh", &["-c", "echo because >&2; exit 3"], "")
            .unwrap()
            .unwrap();
        assert!(!output.success);
        assert_eq!(output.stderr, "because\n");
    }

    #[test]
    fn a_program_that_never_ends_becomes_an_error_in_time() {
        let error = run_within(
            Duration::from_millis(50),
            "sh",
            &["-c", "exec tail -f /dev/null"],
            "",
        )
        .unwrap_err();
        assert!(matches!(error, InterceptionError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_program_that_does_not_read_a_long_input_does_not_block_us() {
        let output = run("true", &[], &"x".repeat(1 << 20)).unwrap().unwrap();
        assert!(output.success);
    }

    fn said(said: &str) -> InterceptionError {
        let output = Output {
            success: false,
            stdout: String::new(),
            stderr: said.to_owned(),
        };
        failure("nft", &["-f", "-"], &output)
    }

    #[test]
    fn what_the_kernel_lacks_is_recognised_in_the_words_of_each_program() {
        for text in [
            "mnl.c:60: Unable to initialize Netlink socket: Protocol not supported",
            "internal:0:0-0: Error: Could not process rule: Operation not supported",
            "/dev/stdin:5:3-60: Error: Could not process rule: No such file or directory",
            "iptables-legacy-save v1.8.9: can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
            "iptables-restore v1.8.9 (nf_tables): line 4: RULE_APPEND failed (No such file or directory): rule in chain OUTPUT",
            "iptables: No chain/target/match by that name.",
        ] {
            let error = said(text);
            assert!(matches!(error, InterceptionError::KernelLacks { .. }), "{error}");
            let told = error.to_string();
            assert!(
                told.contains("nft_redir") && told.contains("on the node") && told.contains(text),
                "{told}"
            );
        }
        let error = said("Error: syntax error, unexpected string");
        assert!(
            matches!(error, InterceptionError::CommandFailed { .. }),
            "{error}"
        );
    }

    #[test]
    fn missing_rights_are_recognised_in_the_words_of_each_program() {
        for text in [
            "Error: Could not process rule: Operation not permitted",
            "iptables-restore v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
        ] {
            let error = said(text);
            assert!(matches!(error, InterceptionError::NotPermitted { .. }), "{error}");
            assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        }
    }
}
