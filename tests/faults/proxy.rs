//! A TCP proxy that injects faults: it delays or holds back traffic, cuts connections, and traps a connection at a
//! given word.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    select,
    sync::{oneshot, watch},
    time::sleep,
};

/// How the proxy treats traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Bytes pass.
    Pass,
    /// Bytes pass after this time.
    Delay(Duration),
    /// Bytes are held back. Connections are accepted but get no answer, as on a network that drops packets.
    Silent,
    /// Connections are closed immediately.
    Refuse,
}

/// What happens to a connection that sends the word of a trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trap {
    /// The word and everything after it is held back.
    Hold,
    /// The word is passed on and executed. The client's connection is closed without an answer.
    CutAnswer,
}

/// A proxy in front of one server, stopped on drop.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

/// A trap that is set.
struct SetTrap {
    /// A word that the connection must have sent before; empty for none.
    after: Vec<u8>,
    word: Vec<u8>,
    trap: Trap,
    caught: oneshot::Sender<()>,
}

struct Shared {
    target: AtomicU16,
    mode: watch::Sender<Mode>,
    /// Incremented to cut all connections.
    cuts: watch::Sender<u64>,
    trap: Mutex<Option<SetTrap>>,
}

impl Proxy {
    pub(crate) async fn before(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            trap: Mutex::new(None),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { port, shared, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Forwards to another server from now on, and closes the connections to the old one.
    pub(crate) fn lead_to(&self, target: u16) {
        self.shared.target.store(target, Ordering::Release);
        self.cut();
    }

    /// Traps the next connection that sends `word`. The receiver completes when it is caught.
    pub(crate) fn trap(&self, word: &[u8], trap: Trap) -> oneshot::Receiver<()> {
        self.trap_after(b"", word, trap)
    }

    /// Like [`Self::trap`], for a connection that has sent `after` since its last `word`.
    pub(crate) fn trap_after(&self, after: &[u8], word: &[u8], trap: Trap) -> oneshot::Receiver<()> {
        let (caught, receiver) = oneshot::channel();
        let set = SetTrap { after: after.to_owned(), word: word.to_owned(), trap, caught };
        *self.shared.trap.lock().expect("no panic") = Some(set);
        receiver
    }

    /// Removes the trap.
    pub(crate) fn disarm(&self) {
        *self.shared.trap.lock().expect("no panic") = None;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Shared {
    /// Returns the trap if these bytes spring it. `is_due`: whether the connection has sent `after`.
    fn springs(&self, bytes: &[u8], is_due: &mut bool) -> Option<Trap> {
        let mut set = self.trap.lock().expect("no panic");
        let SetTrap { after, word, .. } = set.as_ref()?;
        let has = |word: &[u8]| word.is_empty() || bytes.windows(word.len()).any(|window| window == word);
        *is_due |= has(after);
        if !has(word) || !std::mem::take(is_due) {
            return None;
        }
        let SetTrap { trap, caught, .. } = set.take()?;
        let _ = caught.send(());
        Some(trap)
    }

    /// Waits as long as the mode requires.
    async fn wait(&self) {
        let mut mode = self.mode.subscribe();
        loop {
            let now = *mode.borrow_and_update();
            match now {
                Mode::Pass | Mode::Refuse => return,
                Mode::Delay(time) => return sleep(time).await,
                Mode::Silent => {
                    let _ = mode.changed().await;
                }
            }
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if *shared.mode.borrow() == Mode::Refuse {
            continue;
        }
        tokio::spawn(carry(client, Arc::clone(&shared)));
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    cuts.mark_unchanged();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, shared.target.load(Ordering::Acquire)));
    let Ok(server) = TcpStream::connect(address).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let muted = AtomicBool::new(false);
    select! {
        () = up(from_client, to_server, &shared, &muted) => {}
        () = down(from_server, to_client, &shared, &muted) => {}
        _ = cuts.changed() => {}
    }
}

async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, muted: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    let mut is_due = false;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        shared.wait().await;
        let trap = shared.springs(&buffer[..read], &mut is_due);
        if trap == Some(Trap::Hold) {
            return std::future::pending().await;
        }
        muted.store(trap == Some(Trap::CutAnswer), Ordering::Release);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        if trap == Some(Trap::CutAnswer) {
            // Long enough for the server to execute it. The client's connection closes when this function returns.
            return sleep(Duration::from_millis(20)).await;
        }
    }
    // The end of the stream is delayed like the bytes.
    shared.wait().await;
}

async fn down(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, muted: &AtomicBool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        shared.wait().await;
        if muted.load(Ordering::Acquire) {
            continue;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    shared.wait().await;
}
