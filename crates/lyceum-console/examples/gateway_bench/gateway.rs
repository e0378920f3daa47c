//! The gateway as a process of its own, with and without TLS.

use crate::{AnyError, announced};
use futures::{Sink, Stream};
use lyceum_console::websocket::{Heard, Say};
use lyceum_console::{ClientItem, Limits, Mode, Server, ToClient, WebSocket};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

struct Page<S>(WebSocket<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Page<S> {
    type Item = std::io::Result<ClientItem>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|item| {
            Some(item?.map(|heard| match heard {
                Heard::Bytes(bytes) => ClientItem::Bytes(bytes),
                Heard::Alive => ClientItem::Alive,
            }))
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<ToClient> for Page<S> {
    type Error = std::io::Error;
    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_ready(cx)
    }
    fn start_send(mut self: Pin<&mut Self>, item: ToClient) -> std::io::Result<()> {
        let say = match item {
            ToClient::Bytes(bytes) => Say::Bytes(bytes),
            ToClient::Ping => Say::Ping,
            ToClient::Note(_) => return Ok(()),
        };
        Pin::new(&mut self.0).start_send(say)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

fn acceptor() -> Result<TlsAcceptor, AnyError> {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

pub async fn gateways(machines: SocketAddr, tls: bool) -> Result<(), AnyError> {
    let listener = announced().await?;
    let acceptor = tls.then(acceptor).transpose()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match acceptor.clone() {
            None => drop(tokio::spawn(gateway(stream, machines))),
            Some(acceptor) => drop(tokio::spawn(async move {
                let stream = acceptor.accept(stream).await?;
                Box::pin(gateway(stream, machines)).await
            })),
        }
    }
}

// The first half of RFC 6455, as far as a client that means well needs it.
async fn handshake(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), AnyError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let key = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .ok_or("it does not ask for a WebSocket")?
        .1;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    Ok(())
}

async fn gateway<S>(mut stream: S, machines: SocketAddr) -> Result<(), AnyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    handshake(&mut stream).await?;
    let (orders, servers) = mpsc::channel(2);
    let lost = Arc::new(Notify::new());
    let mut page = Page(WebSocket::new(stream));
    let none = futures::stream::pending();
    let supply = async {
        loop {
            let stream = TcpStream::connect(machines).await?;
            stream.set_nodelay(true)?;
            let order = Server::Attach {
                stream,
                same: true,
                taken: None,
            };
            let _ = orders.send(order).await;
            lost.notified().await;
        }
        #[allow(unreachable_code)]
        Ok::<(), AnyError>(())
    };
    let serve = lyceum_console::serve(
        &mut page,
        servers,
        lost.clone(),
        none,
        Mode::default(),
        Limits::default(),
    );
    tokio::select! {
        _ = serve => Ok(()),
        failed = supply => failed,
    }
}
