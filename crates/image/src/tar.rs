//! Reads tar archives: ustar, GNU and PAX, sparse files included; nothing of an archive is held but one header.
//!
//! A reader of our own, for everything that an archive says of itself must have a limit here (see decision 0302).

mod header;
mod pax;
mod sparse;

use std::io::{self, Read};

use header::Header;
use pax::Records;
pub use sparse::Segment;

/// Archives are made of blocks of so many bytes.
pub(crate) const BLOCK: u64 = 512;
/// Headers that may stand before one entry to extend it.
const EXTENSIONS: usize = 16;

/// Why an archive is not read on.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It cannot be read, is cut off, or is larger than allowed.
    #[error("the archive cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It breaks its format.
    #[error("the archive is malformed at byte {at}: {why}")]
    Malformed {
        /// Where the header begins.
        at: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file with bytes.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A folder.
    Folder,
    /// A named pipe.
    Fifo,
    /// Something that is not unpacked.
    Other(u8),
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path as the archive has it.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    /// Size of the file once unpacked, holes included.
    pub size: u64,
    /// What a link points at.
    pub link: Vec<u8>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The parts of a sparse file that have bytes; `None` is all of it.
    pub segments: Option<Vec<Segment>>,
}

/// Reads the entries of an archive, one after another.
pub struct Archive<R> {
    input: R,
    /// Bytes of the archive that were read.
    at: u64,
    /// Bytes of the current entry that were not read yet.
    left: u64,
    /// Bytes between the end of the entry and the next block.
    padding: u64,
    globals: Records,
    extension_most: u64,
    ended: bool,
}

impl<R: Read> Archive<R> {
    /// An archive of which nothing was read. `extension_most`: bytes that the headers extending one entry may have.
    pub fn new(input: R, extension_most: u64) -> Self {
        Self {
            input,
            at: 0,
            left: 0,
            padding: 0,
            globals: Records::default(),
            extension_most,
            ended: false,
        }
    }

    /// The next entry; what was not read of the one before is skipped. Its bytes are read from `self`.
    ///
    /// # Errors
    /// See [`TarError`]. After an error nothing more can be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "the entry's bytes are read from the archive between the calls"
    )]
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extended = Extended::default();
        for _ in 0..EXTENSIONS {
            let Some(header) = self.next_header()? else {
                if extended != Extended::default() {
                    return Err(self.malformed("it ends after a header that extends another"));
                }
                return Ok(None);
            };
            match header.type_flag() {
                b'L' => extended.path = Some(self.long_name(&header)?),
                b'K' => extended.link = Some(self.long_name(&header)?),
                b'x' => {
                    let text = self.extension(&header)?;
                    let records = Records::parse(&text);
                    extended.records = records.map_err(|why| self.malformed(why))?;
                }
                b'g' => {
                    let text = self.extension(&header)?;
                    let records = Records::parse(&text).map_err(|why| self.malformed(why))?;
                    self.globals.update(records);
                }
                _ => return self.entry(&header, extended).map(Some),
            }
        }
        Err(self.malformed("too many headers that extend one entry"))
    }

    /// Reads on to the end of the stream, past the end of the archive.
    ///
    /// # Errors
    /// When the stream cannot be read.
    pub fn finish(&mut self) -> Result<(), TarError> {
        io::copy(&mut self.input, &mut io::sink()).map_err(TarError::Read)?;
        Ok(())
    }

    /// How many bytes of the archive lie before what is read next.
    pub fn position(&self) -> u64 {
        self.at
    }

    fn entry(&mut self, header: &Header, extended: Extended) -> Result<Entry, TarError> {
        let mut records = self.globals.clone();
        records.update(extended.records);
        let mut entry = header.entry().map_err(|why| self.malformed(why))?;
        entry.path = extended.path.unwrap_or(entry.path);
        entry.link = extended.link.unwrap_or(entry.link);
        records
            .apply(&mut entry)
            .map_err(|why| self.malformed(why))?;
        if !header.has_bytes() {
            entry.size = 0;
        }
        self.left = entry.size;
        self.padding = padding(entry.size);
        if header.type_flag() == b'S' {
            self.read_gnu_map(header, &mut entry)?;
        } else if let Some(map) = records.sparse() {
            self.read_pax_map(map, &records, &mut entry)?;
        }
        Ok(entry)
    }

    /// The old GNU form: the map goes on in blocks of its own, which do not count as bytes of the file.
    fn read_gnu_map(&mut self, header: &Header, entry: &mut Entry) -> Result<(), TarError> {
        let mut segments = Vec::new();
        let (mut more, real) = header
            .gnu_map(&mut segments)
            .map_err(|why| self.malformed(why))?;
        while more {
            if segments.len() as u64 * 16 > self.extension_most {
                return Err(self.malformed("the map of a sparse file is too large"));
            }
            let block = self
                .block()?
                .ok_or_else(|| self.malformed("it ends in the map of a sparse file"))?;
            more = sparse::gnu_block(&block, &mut segments).map_err(|why| self.malformed(why))?;
        }
        self.take_map(segments, real, entry)
    }

    fn read_pax_map(
        &mut self,
        map: sparse::PaxMap,
        records: &Records,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        let real = records
            .sparse_size()
            .ok_or_else(|| self.malformed("a sparse file without its size"))?;
        let segments = match map {
            sparse::PaxMap::Here(segments) => segments,
            sparse::PaxMap::InData => self.map_in_data()?,
        };
        self.take_map(segments, real, entry)
    }

    /// The newest form: the map is the beginning of the data, as decimal lines, filled up to a block.
    fn map_in_data(&mut self) -> Result<Vec<Segment>, TarError> {
        let mut lines = sparse::Lines::default();
        while !lines.is_complete() {
            let mut block = [0; BLOCK as usize];
            if self.left < BLOCK || lines.bytes() > self.extension_most {
                return Err(self.malformed("the map of a sparse file is too large"));
            }
            self.read_exact(&mut block).map_err(TarError::Read)?;
            lines.take(&block).map_err(|why| self.malformed(why))?;
        }
        lines.segments().map_err(|why| self.malformed(why))
    }

    fn take_map(
        &mut self,
        segments: Vec<Segment>,
        real: u64,
        entry: &mut Entry,
    ) -> Result<(), TarError> {
        sparse::check(&segments, real, self.left).map_err(|why| self.malformed(why))?;
        entry.size = real;
        entry.kind = Kind::File;
        entry.segments = Some(segments);
        Ok(())
    }

    /// A name that is longer than a header holds, as GNU writes it.
    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let mut name = self.extension(header)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// The bytes of a header that extends another.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = header.size().map_err(|why| self.malformed(why))?;
        if size > self.extension_most {
            return Err(self.malformed("a header that extends an entry is too large"));
        }
        self.left = size;
        self.padding = padding(size);
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read_exact(&mut bytes).map_err(TarError::Read)?;
        Ok(bytes)
    }

    fn next_header(&mut self) -> Result<Option<Header>, TarError> {
        self.skip_rest()?;
        if self.ended {
            return Ok(None);
        }
        let Some(block) = self.block()? else {
            self.ended = true;
            return Ok(None);
        };
        if block.iter().all(|byte| *byte == 0) {
            // upstream: tar ends at two such blocks, and at one all the same.
            self.ended = true;
            return Ok(None);
        }
        Header::parse(block)
            .map(Some)
            .map_err(|why| self.malformed(why))
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.left.saturating_add(self.padding);
        let skipped =
            io::copy(&mut (&mut self.input).take(rest), &mut io::sink()).map_err(TarError::Read)?;
        self.at += skipped;
        // What fills up the last block may be missing at the very end.
        if skipped < self.left {
            return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        (self.left, self.padding) = (0, 0);
        Ok(())
    }

    /// A whole block; `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>, TarError> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        self.at += BLOCK;
        Ok(Some(block))
    }

    fn malformed(&self, why: &'static str) -> TarError {
        TarError::Malformed {
            at: self.at.saturating_sub(BLOCK),
            why,
        }
    }
}

/// Reads the bytes of the current entry.
impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let Some(part) = buffer.get_mut(..most).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        let count = self.input.read(part)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.at += count as u64;
        Ok(count)
    }
}

/// What headers before an entry said of it.
#[derive(Default, PartialEq)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}
