//! A small SPICE server: it links any channel, names a session on the main one, and hears out whatever comes. So the way
//! of a native client can be tried without a guest; there is no picture.

use lyceum_spice::SpiceError;
use lyceum_spice::link::{channel, result};
use lyceum_spice::main_channel::INIT;
use lyceum_spice::shake;
use lyceum_spice::ticket::TicketKey;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of the first message: the session and seven numbers more.
const INIT_SIZE: u32 = 32;

static KEY: LazyLock<Result<TicketKey, SpiceError>> = LazyLock::new(TicketKey::new);
static SESSION: AtomicU32 = AtomicU32::new(0);

/// Serves a channel until its client hangs up.
pub(super) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), SpiceError> {
    let key = KEY.as_ref().map_err(|e| SpiceError::Key(e.to_string()))?;
    let hello = shake::accept(&mut stream, key).await?.hello;
    let main = hello.channel == channel::MAIN;
    if main != (hello.connection == 0) {
        return shake::answer(&mut stream, result::BAD_CONNECTION_ID).await;
    }
    shake::answer(&mut stream, result::OK).await?;
    if main {
        let session = SESSION.fetch_add(1, Ordering::Relaxed) + 1;
        let mut init = INIT.to_le_bytes().to_vec();
        init.extend(INIT_SIZE.to_le_bytes());
        init.extend(session.to_le_bytes());
        init.extend([0; INIT_SIZE as usize - 4]);
        stream.write_all(&init).await?;
    }
    let mut block = [0; 1024];
    while stream.read(&mut block).await? > 0 {}
    Ok(())
}
