//! Moves bytes from one socket to another inside the kernel, through a pipe, so that they are never copied.
//!
//! Used by a direction of a relay whose two sides are sockets without TLS, once it has proved to carry much. A pipe costs
//! two file descriptors and some memory of the kernel: it is borrowed from the thread while bytes are in it, and a
//! direction that waits for more has none.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    unistd::pipe2,
};
use tokio::{io::Interest, net::TcpStream};

/// The most a pipe holds, and with it the most that waits for a side that takes nothing. Of small packets it may hold
/// less, for each takes one of its places.
pub(super) const CAPACITY: usize = 256 * 1024;
/// Empty pipes that a thread keeps.
const KEPT: usize = 16;

thread_local! {
    static IDLE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe that is borrowed. Dropped empty it goes back; with bytes in it, it is closed.
pub(super) struct Pipe {
    /// Gone only while it is dropped.
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// Borrows an empty one.
    pub(super) fn borrow() -> io::Result<Self> {
        let idle = IDLE.with_borrow_mut(Vec::pop);
        Ok(Self {
            ends: Some(idle.map_or_else(open, Ok)?),
            held: 0,
        })
    }

    /// Bytes that are in it.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Takes what has arrived at `from`: 0 at its end. The pipe must be empty.
    pub(super) fn fill(&mut self, context: &mut Context<'_>, from: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else {
            return Poll::Pending;
        };
        loop {
            ready!(from.poll_read_ready(context))?;
            match from.try_io(Interest::READABLE, || carry(from, &ends.write, CAPACITY)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(taken) => {
                    self.held = taken;
                    return Poll::Ready(Ok(taken));
                }
            }
        }
    }

    /// Gives `to` what it takes of what is held.
    pub(super) fn drain(&mut self, context: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else {
            return Poll::Pending;
        };
        loop {
            ready!(to.poll_write_ready(context))?;
            match to.try_io(Interest::WRITABLE, || carry(&ends.read, to, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(taken) => {
                    self.held = self.held.saturating_sub(taken);
                    return Poll::Ready(Ok(taken));
                }
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take().filter(|_| self.held == 0) else {
            return;
        };
        // Without a thread's own storage, at its end, the pipe is closed.
        let _ = IDLE.try_with(|idle| {
            let mut idle = idle.borrow_mut();
            if idle.len() < KEPT {
                idle.push(ends);
            }
        });
    }
}

fn open() -> io::Result<Ends> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    // A user's pipes together may only be so large; one of the usual size carries as well, only less at a time.
    let size = i32::try_from(CAPACITY).expect("a pipe's size is small");
    let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(size));
    Ok(Ends { read, write })
}

fn carry(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    loop {
        match splice(&from, None, &to, None, most, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Ok(carried) => return Ok(carried),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How many empty pipes the thread keeps.
#[cfg(test)]
pub(super) fn idle() -> usize {
    IDLE.with_borrow(Vec::len)
}
