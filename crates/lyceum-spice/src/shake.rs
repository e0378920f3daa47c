//! The link stage over a stream. Both sides' time is for the caller to limit.

use crate::SpiceError;
use crate::link::{HEADER, Header, Hello, MECHANISM, Reply, TICKET, caps, result};
use crate::ticket::{self, TicketKey};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A client that said what it wants and showed a password. It waits for the result.
#[derive(Debug)]
pub struct Asked {
    /// What it wants.
    pub hello: Hello,
    /// What it showed; `None`: it could not be read.
    pub password: Option<String>,
}

/// Hears a client out, as the server.
pub async fn accept<S>(stream: &mut S, key: &TicketKey) -> Result<Asked, SpiceError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = Hello::parse(&message(stream).await?)?;
    hello.check()?;
    let reply = Reply {
        error: result::OK,
        key: key.public(),
        common: vec![caps::OURS],
        // Nothing beyond what every server has had: which one it will be is not known yet.
        own: Vec::new(),
    };
    stream.write_all(&reply.bytes()).await?;
    stream.flush().await?;
    if stream.read_u32_le().await? != MECHANISM {
        return Err(SpiceError::Protocol("another way to show the password"));
    }
    let mut ticket = [0; TICKET];
    stream.read_exact(&mut ticket).await?;
    Ok(Asked {
        hello,
        password: key.open(&ticket),
    })
}

/// Tells a client how it went, as the server.
pub async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, code: u32) -> Result<(), SpiceError> {
    stream.write_u32_le(code).await?;
    stream.flush().await?;
    Ok(())
}

/// Links a channel to a server. `hello`'s common capabilities are ours, whoever it came from. `first` is the
/// channel's first message, if there is one already: it goes out with the ticket, so that no server ever has a channel without it.
pub async fn connect<S>(
    stream: &mut S,
    hello: &Hello,
    password: &str,
    first: &[u8],
) -> Result<(), SpiceError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = Hello {
        common: vec![caps::OURS],
        ..hello.clone()
    };
    stream.write_all(&hello.bytes()).await?;
    stream.flush().await?;
    let reply = Reply::parse(&message(stream).await?)?;
    if reply.error != result::OK {
        return Err(SpiceError::Refused(reply.error));
    }
    if reply
        .common
        .first()
        .is_none_or(|c| c & caps::OURS != caps::OURS)
    {
        return Err(SpiceError::Protocol("a server from before 2012"));
    }
    let mut last = MECHANISM.to_le_bytes().to_vec();
    last.extend(ticket::seal(&reply.key, password)?);
    last.extend(first);
    stream.write_all(&last).await?;
    stream.flush().await?;
    match stream.read_u32_le().await? {
        result::OK => Ok(()),
        code => Err(SpiceError::Refused(code)),
    }
}

async fn message<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, SpiceError> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    let header = Header::parse(&header)?;
    let mut body = vec![0; header.size];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::channel;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            connection: 7,
            channel: channel::MAIN,
            id: 0,
            common: vec![0xf],
            own: vec![1, 2],
        }
    }

    #[tokio::test]
    async fn client_and_server_find_each_other() {
        let key = TicketKey::new().expect("key");
        for code in [result::OK, result::PERMISSION_DENIED] {
            let (mut here, mut there) = tokio::io::duplex(64);
            let server = async {
                let asked = accept(&mut there, &key).await.expect("link");
                assert_eq!(asked.password.as_deref(), Some("s3cret"));
                assert_eq!((asked.hello.connection, asked.hello.own), (7, vec![1, 2]));
                answer(&mut there, code).await.expect("answer");
            };
            let wish = hello();
            let (linked, ()) = tokio::join!(connect(&mut here, &wish, "s3cret", &[]), server);
            match linked {
                Ok(()) => assert_eq!(code, result::OK),
                Err(e) => assert!(matches!(e, SpiceError::Refused(c) if c == code), "{e}"),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_peer_can_do_harm(
            noise in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..400, good: bool,
        ) {
            static KEY: std::sync::LazyLock<TicketKey> = std::sync::LazyLock::new(|| TicketKey::new().expect("key"));
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
            // All of it is noise, or a good beginning with noise in it.
            let bytes = if good {
                let mut bytes = hello().bytes();
                bytes.extend(MECHANISM.to_le_bytes());
                bytes.extend([1; TICKET]);
                let at = at.min(bytes.len());
                bytes.truncate(at);
                bytes.extend(&noise);
                bytes
            } else {
                noise
            };
            runtime.block_on(async {
                let (mut here, mut there) = tokio::io::duplex(4096);
                here.write_all(&bytes).await.expect("room");
                here.shutdown().await.expect("open");
                if let Ok(asked) = accept(&mut there, &KEY).await {
                    assert_eq!(asked.password, None);
                }
                let (mut here, mut there) = tokio::io::duplex(4096);
                there.write_all(&bytes).await.expect("room");
                there.shutdown().await.expect("open");
                assert!(connect(&mut here, &hello(), "", &[]).await.is_err());
            });
        }
    }
}
