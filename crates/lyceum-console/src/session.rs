//! One client's session: both handshakes, and what has to be told to a server that takes over.
//! Pure: bytes in, bytes out; time is handed in.
//!
//! ```text
//! client:  Version ─► Security ─► Init ─► WaitsForServer ─► Normal
//! server:  none ─► Version ─► Security ─► Result ─► Init ─► Name ─► Normal ─► none ...
//! ```

use crate::client::{ClientMessage, ClientParser};
use crate::input::InputQueue;
use crate::output::Output;
use crate::protocol::{PixelFormat, ProtocolError, UpdateRequest, encoding, passes};
use crate::server::ServerParser;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::time::Instant;

const VERSION: &[u8; 12] = b"RFB 003.008\n";
/// Longest name of a desktop.
const NAME_MAX: usize = 4096;
/// What waits for a client until the server is asked for nothing and read no more.
const OUTPUT_HIGH: usize = 128 * 1024;
/// The same towards a server.
const SERVER_HIGH: usize = 64 * 1024;

/// How a session is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mode {
    /// Keys, clicks and clipboard of this client go nowhere.
    pub view_only: bool,
    /// The client was let in already, as far as the result of its security type, which is the next
    /// that it is told.
    pub let_in: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientState {
    Version,
    Security,
    Init,
    WaitsForServer,
    Normal,
}

#[derive(Debug)]
enum Server {
    None,
    Version,
    // How many types follow, once it is known.
    Security(Option<usize>),
    Result,
    Init,
    Name(usize),
    Normal(Box<ServerParser>),
}

#[derive(Debug, Clone)]
struct Picture {
    size: (u16, u16),
    format: PixelFormat,
    name: Bytes,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Session {
    mode: Mode,
    client: ClientState,
    old_version: bool,
    from_client: ClientParser,
    hello: BytesMut,
    out: Output,
    drained: bool,
    // What the client believes; nothing before the first server.
    picture: Option<Picture>,
    told_format: bool,
    encodings: Vec<i32>,
    input: InputQueue,

    server: Server,
    head: BytesMut,
    to_server: BytesMut,
    written: u64,
    same: bool,
    // Its picture is not of the client's size, and the client could not be told.
    larger: bool,
    wanted: Option<UpdateRequest>,
    asked: bool,
    whole_next: bool,
    told_encodings: bool,
    fresh: bool,
    pictures: u64,
    another_server: bool,
    // Bytes written to the last server, until it is told how many of them it read.
    lost: Option<u64>,
    inputs: u64,
}

impl Session {
    /// A client that just connected; there is no server yet.
    pub fn new(mode: Mode) -> Session {
        let mut session = Session {
            mode,
            client: ClientState::Version,
            old_version: false,
            from_client: ClientParser::default(),
            hello: BytesMut::new(),
            out: Output::default(),
            drained: true,
            picture: None,
            told_format: false,
            encodings: Vec::new(),
            input: InputQueue::default(),
            server: Server::None,
            head: BytesMut::new(),
            to_server: BytesMut::new(),
            written: 0,
            same: false,
            larger: false,
            wanted: None,
            asked: false,
            whole_next: false,
            told_encodings: false,
            fresh: false,
            pictures: 0,
            another_server: false,
            lost: None,
            inputs: 0,
        };
        if mode.let_in {
            session.out.emit_copy(&[0; 4]);
            session.client = ClientState::Init;
        } else {
            session.out.emit_copy(VERSION);
        }
        session
    }

    // ---- the client's side ----

    /// Bytes of the client. An error ends the client's connection.
    pub fn from_client(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        if self.client == ClientState::Normal {
            self.from_client.push(bytes);
        } else {
            self.hello.extend_from_slice(bytes);
            self.client_hello()?;
        }
        if self.client == ClientState::Normal {
            while let Some(message) = self.from_client.next()? {
                self.client_says(message);
            }
        }
        Ok(())
    }

    fn client_hello(&mut self) -> Result<(), ProtocolError> {
        loop {
            match self.client {
                ClientState::Version => {
                    if self.hello.len() < VERSION.len() {
                        return Ok(());
                    }
                    let version = self.hello.split_to(VERSION.len());
                    match &version[..] {
                        b"RFB 003.003\n" => {
                            // The server decides: no security, and no word about the result.
                            self.out.emit_copy(&1u32.to_be_bytes());
                            self.client = ClientState::Init;
                        }
                        b"RFB 003.007\n" | b"RFB 003.008\n" => {
                            self.old_version = version[10] == b'7';
                            self.out.emit_copy(&[1, 1]);
                            self.client = ClientState::Security;
                        }
                        _ => return Err(ProtocolError::Version),
                    }
                }
                ClientState::Security => {
                    if self.hello.is_empty() {
                        return Ok(());
                    }
                    if self.hello.get_u8() != 1 {
                        return Err(ProtocolError::Security);
                    }
                    if !self.old_version {
                        self.out.emit_copy(&[0; 4]);
                    }
                    self.client = ClientState::Init;
                }
                ClientState::Init => {
                    if self.hello.is_empty() {
                        return Ok(());
                    }
                    // Everybody shares.
                    self.hello.advance(1);
                    self.client = ClientState::WaitsForServer;
                    self.welcome();
                }
                ClientState::WaitsForServer => {
                    // Nothing is to be said before the size is known; a few bytes are forgiven.
                    if self.hello.len() > NAME_MAX {
                        return Err(ProtocolError::Malformed("too much before it was welcomed"));
                    }
                    return Ok(());
                }
                ClientState::Normal => return Ok(()),
            }
        }
    }

    // Tells the client of the picture when both are there.
    fn welcome(&mut self) {
        let Some(picture) = &self.picture else {
            return;
        };
        if self.client != ClientState::WaitsForServer {
            return;
        }
        let mut init = BytesMut::with_capacity(24 + picture.name.len());
        init.put_u16(picture.size.0);
        init.put_u16(picture.size.1);
        init.put_slice(picture.format.raw());
        init.put_u32(picture.name.len() as u32);
        init.put_slice(&picture.name);
        self.out.emit_copy(&init);
        self.client = ClientState::Normal;
        let early = std::mem::take(&mut self.hello);
        self.from_client.push(&early);
    }

    fn client_says(&mut self, message: ClientMessage) {
        match message {
            ClientMessage::SetPixelFormat(format) => self.set_format(format),
            ClientMessage::SetEncodings(list) => {
                self.encodings = list;
                let last_rect = self.knows(encoding::LAST_RECT);
                if let Server::Normal(server) = &mut self.server {
                    server.set_last_rect(last_rect);
                    self.tell_encodings();
                }
            }
            ClientMessage::UpdateRequest(request) => {
                self.wanted = Some(self.wanted.map_or(request, |w| w.and(request)));
            }
            ClientMessage::Input(input) => {
                if !self.mode.view_only {
                    self.inputs += 1;
                    self.input.push(input);
                }
            }
        }
    }

    fn set_format(&mut self, format: PixelFormat) {
        let Some(picture) = &mut self.picture else {
            return;
        };
        let before = std::mem::replace(&mut picture.format, format);
        self.told_format = true;
        if before == format {
            return;
        }
        if let Server::Normal(server) = &mut self.server {
            if self.asked || self.told_encodings || !server.is_between() {
                // Pictures in the old format may be on their way, and nothing marks the last of them.
                self.another_server = true;
            } else {
                server.set_format(format);
                self.to_server.put_slice(&[0; 4]);
                self.to_server.put_slice(format.raw());
            }
        }
    }

    fn knows(&self, code: i32) -> bool {
        self.encodings.contains(&code)
    }

    /// The next piece for the client.
    pub fn to_client(&mut self) -> Option<Bytes> {
        let piece = self.out.pop();
        if piece.is_some() {
            self.drained = false;
        }
        piece
    }

    /// Whether nothing waits to be given to the client.
    pub fn to_client_is_empty(&self) -> bool {
        self.out.ready() == 0
    }

    /// Everything that was [given](Self::to_client) for the client has left this program.
    pub fn client_drained(&mut self) {
        self.drained = true;
    }

    // ---- the server's side ----

    /// A server was connected to. `same`: it goes on with the machine that the last one ran, as it was.
    /// `taken`: how many bytes of the last connection its server is known to have read; nothing: what
    /// was written counts as read, so that nothing is ever done twice.
    pub fn attach(&mut self, same: bool, taken: Option<u64>) {
        self.detach();
        if let Some(written) = self.lost.take() {
            self.input.lost(taken.unwrap_or(written));
        }
        self.server = Server::Version;
        self.same = same;
        self.written = 0;
        self.told_encodings = false;
    }

    /// The server's connection ended.
    pub fn detach(&mut self) {
        if let Server::Normal(server) = &mut self.server {
            server.end(&mut self.out);
            self.lost = Some(self.written);
            if self.asked {
                self.wanted = self
                    .picture
                    .as_ref()
                    .map(|p| UpdateRequest::whole(p.size, false));
            }
        }
        self.server = Server::None;
        self.asked = false;
        self.fresh = false;
        self.another_server = false;
        self.head = BytesMut::new();
        self.to_server = BytesMut::new();
    }

    /// Whether a server is connected.
    pub fn has_server(&self) -> bool {
        !matches!(self.server, Server::None)
    }

    /// Whether this server's connection has to be made anew, because of what the client wants.
    pub fn wants_another_server(&self) -> bool {
        self.another_server
    }

    /// Whether the client can take more of what the server sends.
    pub fn wants_server(&self) -> bool {
        self.has_server() && self.out.ready() < OUTPUT_HIGH
    }

    /// Updates with a part of the picture that were passed on.
    pub fn pictures(&self) -> u64 {
        self.pictures
    }

    /// Whether the server that is there now has not shown a picture yet.
    pub fn is_waiting(&self) -> bool {
        self.fresh || !matches!(self.server, Server::Normal(_))
    }

    /// What the person did so far, in events.
    pub fn inputs(&self) -> u64 {
        self.inputs
    }

    /// Events of the person that wait for a server.
    pub fn held(&self) -> usize {
        self.input.waiting()
    }

    /// Bytes of the server. An error ends the server's connection; the client stays.
    pub fn from_server(&mut self, chunk: Bytes) -> Result<(), ProtocolError> {
        if let Server::Normal(_) = &self.server {
            return self.server_shows(chunk);
        }
        self.head.extend_from_slice(&chunk);
        while self.server_hello()? {}
        if let Server::Normal(_) = &self.server
            && !self.head.is_empty()
        {
            let early = std::mem::take(&mut self.head).freeze();
            return self.server_shows(early);
        }
        Ok(())
    }

    fn server_shows(&mut self, chunk: Bytes) -> Result<(), ProtocolError> {
        let Server::Normal(server) = &mut self.server else {
            return Ok(());
        };
        server.push(chunk, &mut self.out)?;
        let progress = server.progress();
        if let (Some(size), Some(picture)) = (progress.resized, &mut self.picture) {
            picture.size = size;
        }
        if progress.pictures > 0 {
            self.pictures += u64::from(progress.pictures);
            self.asked = false;
            self.fresh = false;
        }
        Ok(())
    }

    // Takes the next part of the server's handshake; whether there was one.
    fn server_hello(&mut self) -> Result<bool, ProtocolError> {
        let there = self.head.len();
        match &mut self.server {
            Server::None => {
                self.head.clear();
                return Ok(false);
            }
            Server::Version => {
                if there < VERSION.len() {
                    return Ok(false);
                }
                if self.head.split_to(VERSION.len())[..] != VERSION[..] {
                    return Err(ProtocolError::Version);
                }
                self.to_server.put_slice(VERSION);
                self.server = Server::Security(None);
            }
            Server::Security(count @ None) => {
                if there < 1 {
                    return Ok(false);
                }
                *count = Some(usize::from(self.head.get_u8()));
            }
            Server::Security(Some(count)) => {
                if there < *count {
                    return Ok(false);
                }
                // None at all: it refuses, and says why.
                if !self.head.split_to(*count).contains(&1) {
                    return Err(ProtocolError::Security);
                }
                self.to_server.put_u8(1);
                self.server = Server::Result;
            }
            Server::Result => {
                if there < 4 {
                    return Ok(false);
                }
                if self.head.get_u32() != 0 {
                    return Err(ProtocolError::Security);
                }
                // Shared: others stay connected.
                self.to_server.put_u8(1);
                self.server = Server::Init;
            }
            Server::Init => {
                if there < 24 {
                    return Ok(false);
                }
                let name = self.head[20..24]
                    .iter()
                    .fold(0usize, |n, b| n << 8 | usize::from(*b));
                if name > NAME_MAX {
                    return Err(ProtocolError::Malformed("a name of impossible length"));
                }
                self.server = Server::Name(name);
            }
            Server::Name(length) => {
                if there < 24 + *length {
                    return Ok(false);
                }
                let init = self.head.split_to(24 + *length).freeze();
                self.begin(init)?;
                return Ok(false);
            }
            Server::Normal(_) => return Ok(false),
        }
        Ok(true)
    }

    // The server has told its picture: from here on it serves this client.
    fn begin(&mut self, init: Bytes) -> Result<(), ProtocolError> {
        let size = (
            u16::from_be_bytes([init[0], init[1]]),
            u16::from_be_bytes([init[2], init[3]]),
        );
        if size.0 == 0 || size.1 == 0 {
            return Err(ProtocolError::Malformed("a picture without a pixel"));
        }
        let native = PixelFormat::parse(&init[4..20])?;
        let first = self.picture.is_none();
        if first {
            self.picture = Some(Picture {
                size,
                format: native,
                name: init.slice(24..),
            });
            self.welcome();
        } else {
            self.resize(size);
        }
        let Some(picture) = &self.picture else {
            return Ok(());
        };
        let (format, known) = (picture.format, picture.size);
        self.larger = known != size;
        let last_rect = self.knows(encoding::LAST_RECT);
        if self.told_format || format != native {
            self.to_server.put_slice(&[0; 4]);
            self.to_server.put_slice(format.raw());
        }
        let parser = ServerParser::new(format, known, last_rect, !first);
        self.server = Server::Normal(Box::new(parser));
        if !self.encodings.is_empty() {
            self.tell_encodings();
        }
        self.whole_next = true;
        self.fresh = true;
        self.input
            .found(self.same, self.written, &mut self.to_server);
        Ok(())
    }

    // The next server's picture has another size than the client's.
    fn resize(&mut self, size: (u16, u16)) {
        let extended = self.knows(encoding::EXTENDED_DESKTOP_SIZE);
        let plain = self.knows(encoding::DESKTOP_SIZE);
        let Some(picture) = &mut self.picture else {
            return;
        };
        if picture.size == size || !(extended || plain) {
            return;
        }
        picture.size = size;
        let mut update = BytesMut::with_capacity(36);
        update.put_slice(&[0, 0, 0, 1, 0, 0, 0, 0]);
        update.put_u16(size.0);
        update.put_u16(size.1);
        if extended {
            update.put_i32(encoding::EXTENDED_DESKTOP_SIZE);
            update.put_slice(&[1, 0, 0, 0]);
            update.put_slice(&[0; 8]);
            update.put_u16(size.0);
            update.put_u16(size.1);
            update.put_u32(0);
        } else {
            update.put_i32(encoding::DESKTOP_SIZE);
        }
        self.out.emit_copy(&update);
    }

    fn tell_encodings(&mut self) {
        let Some(picture) = &self.picture else {
            return;
        };
        // Without a word for a new size, rectangles may have to be left out, which Tight can't bear.
        let resizes = self.knows(encoding::EXTENDED_DESKTOP_SIZE)
            || self.knows(encoding::DESKTOP_SIZE)
            || !self.larger;
        let list: Vec<i32> = self
            .encodings
            .iter()
            .copied()
            .filter(|code| passes(*code, &picture.format))
            .filter(|code| resizes || !matches!(*code, encoding::TIGHT | encoding::TIGHT_PNG))
            .collect();
        self.to_server.put_slice(&[2, 0]);
        self.to_server.put_u16(list.len() as u16);
        for code in list {
            self.to_server.put_i32(code);
        }
        self.told_encodings = true;
    }

    /// Writes for the server what can be said now. Answers when there may be more to say.
    pub fn advance(&mut self, now: Instant) -> Option<Instant> {
        let Server::Normal(_) = &self.server else {
            return None;
        };
        if self.to_server.len() > SERVER_HIGH {
            return None;
        }
        let again = self.input.advance(now, self.written, &mut self.to_server);
        // A client that has not read what is there gets nothing newer: the server leaves out what
        // it does not ask for.
        if self.out.ready() == 0
            && self.drained
            && let Some(mut request) = self.wanted.take()
        {
            if std::mem::take(&mut self.whole_next)
                && let Some(picture) = &self.picture
            {
                request = UpdateRequest::whole(picture.size, false);
            }
            request.put(&mut self.to_server);
            self.asked = true;
        }
        again
    }

    /// What is to be written to the server.
    pub fn to_server(&self) -> &[u8] {
        &self.to_server
    }

    /// So many bytes of it were.
    pub fn wrote(&mut self, bytes: usize) {
        let bytes = bytes.min(self.to_server.len());
        self.to_server.advance(bytes);
        self.written += bytes as u64;
        if self.to_server.is_empty() {
            self.to_server = BytesMut::new();
        }
    }
}
