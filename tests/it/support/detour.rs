//! A port that leads to a server, and later to another one: as a name in DNS does that is moved.

use std::net::Ipv4Addr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    task::JoinHandle,
};

/// A port whose target can be changed. Closed when dropped.
pub(crate) struct Detour {
    port: u16,
    target: watch::Sender<u16>,
    accepting: JoinHandle<()>,
}

impl Detour {
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let target = watch::Sender::new(target);
        let targets = target.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, targets.clone()));
            }
        });
        Self { port, target, accepting }
    }

    /// Cuts all connections. New ones lead to this port.
    pub(crate) fn lead_to(&self, target: u16) {
        self.target.send_replace(target);
    }

    /// Returns the URL of a server with the port of this detour.
    pub(crate) fn url(&self, url: &str, port: u16) -> String {
        url.replace(&format!(":{port}"), &format!(":{}", self.port))
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: TcpStream, mut targets: watch::Receiver<u16>) {
    let target = *targets.borrow_and_update();
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = targets.changed() => {}
    }
}
