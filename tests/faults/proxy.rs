//! A TCP proxy that misbehaves on request: it delays, falls silent, cuts, and catches a connection at a given word.

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

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They pass.
    Pass,
    /// They pass after a while.
    Delay(Duration),
    /// They stay where they are; connections are accepted and nobody answers. So looks a network that drops packets.
    Silent,
    /// Connections end at once.
    Refuse,
}

/// What becomes of a connection that sends the word it is trapped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trap {
    /// The word is not passed on, and nothing after it.
    Hold,
    /// The word is passed on and carried out; the client sees the connection end instead of an answer.
    CutAnswer,
}

/// A proxy before one server. Dropping it ends it.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

/// A trap that waits for somebody.
struct SetTrap {
    /// The connection has to have sent this before; nothing, or a word.
    after: Vec<u8>,
    word: Vec<u8>,
    trap: Trap,
    caught: oneshot::Sender<()>,
}

struct Shared {
    target: AtomicU16,
    mode: watch::Sender<Mode>,
    /// Raised to cut all connections.
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

    /// Ends every connection there is.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Leads to another server from now on; connections to the old one end.
    pub(crate) fn lead_to(&self, target: u16) {
        self.shared.target.store(target, Ordering::Release);
        self.cut();
    }

    /// Catches the next connection that sends `word`; the answer comes when it is caught.
    pub(crate) fn trap(&self, word: &[u8], trap: Trap) -> oneshot::Receiver<()> {
        self.trap_after(b"", word, trap)
    }

    /// The same, but only one that has sent `after` since its last `word`.
    pub(crate) fn trap_after(&self, after: &[u8], word: &[u8], trap: Trap) -> oneshot::Receiver<()> {
        let (caught, receiver) = oneshot::channel();
        let set = SetTrap { after: after.to_owned(), word: word.to_owned(), trap, caught };
        *self.shared.trap.lock().expect("no panic") = Some(set);
        receiver
    }

    /// Catches nobody any more.
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
    /// `is_due`: the connection has sent what has to come before.
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

    /// Waits for as long as the mode asks.
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
            // Long enough for the server to carry it out. The client's connection ends with this function.
            return sleep(Duration::from_millis(20)).await;
        }
    }
    // The end travels like the bytes.
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
