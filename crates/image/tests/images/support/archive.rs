//! Tar archives written byte by byte: also such as no tool would write.

/// An archive in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

/// An entry's header, as the archive will say it.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) link: Vec<u8>,
    pub(crate) device: (u32, u32),
}

impl Head {
    pub(crate) fn new(path: &str, kind: u8) -> Head {
        Head {
            path: path.as_bytes().to_vec(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            link: Vec::new(),
            device: (0, 0),
        }
    }
}

impl Tar {
    pub(crate) fn new() -> Tar {
        Tar::default()
    }

    /// A file with the usual owner and mode.
    pub(crate) fn file(self, path: &str, bytes: &[u8]) -> Tar {
        self.file_as(Head::new(path, b'0'), bytes)
    }

    /// A file as its head says.
    pub(crate) fn file_as(self, mut head: Head, bytes: &[u8]) -> Tar {
        head.size = bytes.len() as u64;
        self.raw(&head, bytes)
    }

    pub(crate) fn folder(self, path: &str, mode: u32) -> Tar {
        let mut head = Head::new(path, b'5');
        head.mode = mode;
        self.raw(&head, b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Tar {
        let mut head = Head::new(path, b'2');
        head.link = target.as_bytes().to_vec();
        self.raw(&head, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Tar {
        let mut head = Head::new(path, b'1');
        head.link = target.as_bytes().to_vec();
        self.raw(&head, b"")
    }

    /// PAX records for the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut text = Vec::new();
        for (key, value) in records {
            let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let mut length = body.len() + 1;
            while length != body.len() + length.to_string().len() {
                length = body.len() + length.to_string().len();
            }
            text.extend_from_slice(length.to_string().as_bytes());
            text.extend_from_slice(&body);
        }
        self.file_as(Head::new("pax", b'x'), &text)
    }

    /// A header and some bytes, whatever they say of each other.
    pub(crate) fn raw(mut self, head: &Head, bytes: &[u8]) -> Tar {
        self.0.extend_from_slice(&block(head));
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The archive, ended as it should be.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// The archive as far as it is.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }
}

/// One header with a right checksum.
pub(crate) fn block(head: &Head) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &head.path[..head.path.len().min(100)]);
    put(100, format!("{:07o}\0", head.mode).as_bytes());
    put(108, format!("{:07o}\0", head.uid).as_bytes());
    put(116, format!("{:07o}\0", head.gid).as_bytes());
    put(124, format!("{:011o}\0", head.size).as_bytes());
    put(136, format!("{:011o}\0", 1_700_000_000).as_bytes());
    put(156, &[head.kind]);
    put(157, &head.link[..head.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}\0", head.device.0).as_bytes());
    put(337, format!("{:07o}\0", head.device.1).as_bytes());
    sum(&mut block);
    block
}

/// Puts the checksum of a header right.
pub(crate) fn sum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
