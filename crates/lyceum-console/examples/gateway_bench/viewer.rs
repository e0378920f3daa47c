//! Viewers: they count bytes and look at none.

use crate::machine::picture;
use crate::{AnyError, HEIGHT, WIDTH};
use futures::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Whoever it is.
#[derive(Debug)]
struct AnyCertificate(rustls::crypto::CryptoProvider);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn connector() -> Result<TlsConnector, AnyError> {
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

trait Both: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Both for S {}

pub struct Viewer {
    socket: WebSocketStream<Box<dyn Both>>,
    // Bytes that came with others.
    early: usize,
}

impl Viewer {
    /// Shakes hands and reads the first whole picture.
    pub async fn connect(to: SocketAddr, tls: bool) -> Result<Viewer, AnyError> {
        let tcp = TcpStream::connect(to).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Both> = match tls {
            false => Box::new(tcp),
            true => Box::new(connector()?.connect("localhost".try_into()?, tcp).await?),
        };
        let (socket, _) = tokio_tungstenite::client_async(format!("ws://{to}/"), stream).await?;
        let mut viewer = Viewer { socket, early: 0 };
        viewer.read(12).await?;
        viewer.send(b"RFB 003.008\n").await?;
        viewer.read(2).await?;
        viewer.send(&[1]).await?;
        viewer.read(4).await?;
        viewer.send(&[1]).await?;
        viewer.read(28).await?;
        viewer.send(&[2, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0]).await?;
        viewer.ask(false, 0, 0).await?;
        viewer.read(picture(1).len()).await?;
        Ok(viewer)
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), AnyError> {
        self.socket.send(Message::binary(bytes.to_vec())).await?;
        Ok(())
    }

    pub async fn read(&mut self, bytes: usize) -> Result<(), AnyError> {
        while self.early < bytes {
            match self.socket.next().await {
                Some(Ok(Message::Binary(part))) => self.early += part.len(),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(e.into()),
                None => return Err("the proxy closed".into()),
            }
        }
        self.early -= bytes;
        Ok(())
    }

    /// Presses a key and waits for the answer, which has to be asked for before.
    pub async fn press(&mut self) -> Result<(), AnyError> {
        self.send(&[4, 1, 0, 0, 0, 0, 0, 0x61]).await?;
        self.read(crate::machine::SMALL).await
    }

    pub async fn ask(&mut self, incremental: bool, x: u16, y: u16) -> Result<(), AnyError> {
        let mut ask = vec![3, u8::from(incremental)];
        for n in [x, y, WIDTH, HEIGHT] {
            ask.extend(n.to_be_bytes());
        }
        self.send(&ask).await
    }
}
