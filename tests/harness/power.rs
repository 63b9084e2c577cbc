//! A power cut: of a process's folder only what was synced is left. strace records what
//! the process does to its files, and they are made anew from the synced writes alone.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Child;

use super::servers::set_mode;
use super::strace;

const CALLS: &str = "trace=openat,write,writev,pwrite64,ftruncate,fallocate,fsync,fdatasync,rename,renameat,\
    renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,sendto,sendmsg";

/// What a process does to its folder from now on.
pub struct Recording {
    strace: Child,
    trace: PathBuf,
    disk: Disk,
}

/// What the process has answered.
#[derive(Debug, Default)]
pub struct Told {
    /// How many messages were called taken.
    pub taken: usize,
    /// Those of them of which nothing was on the disk yet.
    pub early: Vec<String>,
}

/// The files of a folder, as far as they are on the disk.
struct Disk {
    root: PathBuf,
    inodes: Vec<Inode>,
    /// As the process sees them, and as they are on the disk.
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    /// Not yet on the disk, by their order; without an inode the name goes.
    unsynced_names: Vec<(u64, PathBuf, Option<usize>)>,
    /// What is called a message in what is on the disk.
    kept: BTreeSet<Vec<u8>>,
    told: Told,
    /// Of the next change.
    order: u64,
}

struct Inode {
    is_folder: bool,
    mode: u32,
    synced: Vec<u8>,
    unsynced: Vec<(u64, Change)>,
    /// Where a plain write goes on.
    position: usize,
}

enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

/// A sync: what came before this is on the disk when it has ended.
struct Sync {
    path: PathBuf,
    before: u64,
}

impl Recording {
    /// Begins at a process that is under way; what is there is taken to be on the disk.
    pub async fn begin(pid: u32, folder: &Path, trace: &Path) -> Result<Self> {
        let file = trace.to_string_lossy();
        let arguments = [
            "-y",
            "-xx",
            "-s",
            "100000000",
            "-e",
            CALLS,
            "-e",
            "signal=none",
            "-o",
            &file,
        ];
        Ok(Self {
            strace: strace::attach(pid, &arguments).await?,
            trace: trace.to_owned(),
            disk: Disk::read(folder)?,
        })
    }

    /// The process has died: leaves in its folder what was synced, and nothing else.
    pub async fn cut(mut self) -> Result<Told> {
        self.strace.wait().await?;
        tokio::task::spawn_blocking(move || {
            let trace = std::fs::File::open(&self.trace)?;
            self.disk.replay(BufReader::new(trace))?;
            self.disk.write()?;
            std::fs::remove_file(&self.trace)?;
            Ok(self.disk.told)
        })
        .await?
    }
}

impl Disk {
    fn read(root: &Path) -> Result<Self> {
        let mut disk = Self {
            root: root.to_owned(),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            kept: BTreeSet::new(),
            told: Told::default(),
            order: 0,
        };
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                match disk.read_one(&path) {
                    Ok(true) => folders.push(path),
                    Ok(false) => {}
                    // It went away meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(disk)
    }

    /// Whether it is a folder.
    fn read_one(&mut self, path: &Path) -> std::io::Result<bool> {
        let found = std::fs::metadata(path)?;
        let bytes = match found.is_dir() {
            true => Vec::new(),
            false => std::fs::read(path)?,
        };
        self.kept.extend(ids(&bytes).map(<[u8]>::to_vec));
        let inode = self.make(found.is_dir(), found.permissions().mode(), bytes);
        self.synced_names.insert(path.to_owned(), inode);
        self.names.insert(path.to_owned(), inode);
        Ok(found.is_dir())
    }

    fn make(&mut self, is_folder: bool, mode: u32, synced: Vec<u8>) -> usize {
        self.inodes.push(Inode {
            is_folder,
            mode,
            synced,
            unsynced: Vec::new(),
            position: 0,
        });
        self.inodes.len() - 1
    }

    /// Follows what strace wrote, call by call.
    fn replay(&mut self, trace: impl BufRead) -> Result<()> {
        // By thread: calls that have begun, while others came in between.
        let mut begun: BTreeMap<String, (String, Option<Sync>)> = BTreeMap::new();
        for line in trace.lines() {
            let line = line?;
            let (thread, rest) = line.split_once(' ').context("a line of strace")?;
            let rest = rest.trim_start();
            if let Some(resumed) = rest.strip_prefix("<... ") {
                let (_, end) = resumed.split_once(" resumed>").context("a line of strace")?;
                // It may have begun before strace came.
                if let Some((begin, sync)) = begun.remove(thread) {
                    self.end(&format!("{begin}{end}"), sync)?;
                }
            } else if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
                let sync = self.begin(begin);
                begun.insert(thread.to_owned(), (begin.to_owned(), sync));
            } else if !rest.starts_with('+') {
                let sync = self.begin(rest);
                self.end(rest, sync)?;
            }
        }
        Ok(())
    }

    /// A call begins: an answer is out, and a sync takes what was written before it.
    fn begin(&mut self, call: &str) -> Option<Sync> {
        let (name, arguments) = call.split_once('(')?;
        let path = place(arguments)?;
        match name {
            "sendto" | "sendmsg" | "write" | "writev" if path.to_string_lossy().starts_with("socket:") => {
                self.answer(&strings(arguments).concat());
                None
            }
            "fsync" | "fdatasync" => Some(Sync {
                path,
                before: self.order,
            }),
            _ => None,
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        let is_told = bytes.starts_with(b"HTTP/1.1 200") && find(bytes, b"{\"message_id\":").is_some();
        for id in ids(bytes).filter(|_| is_told) {
            self.told.taken += 1;
            if !self.kept.contains(id) {
                self.told.early.push(String::from_utf8_lossy(id).into_owned());
            }
        }
    }

    /// A call has ended: what it did, if it did anything.
    fn end(&mut self, call: &str, sync: Option<Sync>) -> Result<()> {
        let (call, result) = call.rsplit_once(" = ").unwrap_or((call, "?"));
        let (name, arguments) = call.split_once('(').context("no call")?;
        let arguments = arguments.trim_end().trim_end_matches(')');
        // It failed, or the process died in it.
        if result.starts_with(['-', '?']) {
            return Ok(());
        }
        match name {
            "pwrite64" => self.change(arguments, |_, bytes| Change::Write(last(arguments), bytes)),
            "write" | "writev" => self.change(arguments, Change::Write),
            "ftruncate" => self.change(arguments, |_, _| Change::Size(last(arguments))),
            "fsync" | "fdatasync" => self.sync(&sync.context("a sync that never began")?),
            "openat" => self.open(arguments, result),
            "mkdir" | "mkdirat" => {
                let inode = self.make(true, 0o700, Vec::new());
                self.name(path(arguments, 0), Some(inode));
            }
            "unlink" | "unlinkat" | "rmdir" => self.name(path(arguments, 0), None),
            "link" | "linkat" => {
                let inode = self.names.get(&path(arguments, 0)).copied();
                self.name(path(arguments, 1), inode);
            }
            "rename" | "renameat" | "renameat2" => {
                let inode = self.names.get(&path(arguments, 0)).copied();
                self.name(path(arguments, 1), inode);
                self.name(path(arguments, 0), None);
            }
            "sendto" | "sendmsg" => {}
            other => bail!("{other} is not understood"),
        }
        Ok(())
    }

    fn change(&mut self, arguments: &str, change: impl FnOnce(usize, Vec<u8>) -> Change) {
        let inode = place(arguments).and_then(|path| self.names.get(&path).copied());
        let Some(inode) = inode.and_then(|inode| self.inodes.get_mut(inode)) else {
            return;
        };
        let bytes = strings(arguments).concat();
        let position = inode.position;
        inode.position += bytes.len();
        inode.unsynced.push((self.order, change(position, bytes)));
        self.order += 1;
    }

    fn open(&mut self, arguments: &str, result: &str) {
        let Some(path) = place(result).filter(|_| arguments.contains("O_CREAT")) else {
            return;
        };
        match self.names.get(&path).copied() {
            None => {
                let inode = self.make(false, 0o600, Vec::new());
                self.name(path, Some(inode));
            }
            Some(inode) if arguments.contains("O_TRUNC") => {
                self.inodes[inode].position = 0;
                self.inodes[inode].unsynced.push((self.order, Change::Size(0)));
                self.order += 1;
            }
            Some(_) => {}
        }
    }

    fn name(&mut self, path: PathBuf, inode: Option<usize>) {
        if !path.starts_with(&self.root) {
            return;
        }
        match inode {
            Some(inode) => drop(self.names.insert(path.clone(), inode)),
            None => drop(self.names.remove(&path)),
        }
        self.unsynced_names.push((self.order, path, inode));
        self.order += 1;
    }

    /// A file's bytes, or a folder's names.
    fn sync(&mut self, sync: &Sync) {
        let inode = self.names.get(&sync.path).and_then(|inode| self.inodes.get_mut(*inode));
        if let Some(inode) = inode.filter(|inode| !inode.is_folder) {
            let changes = inode.unsynced.iter().take_while(|(order, _)| *order < sync.before);
            let count = changes.count();
            for (_, change) in inode.unsynced.drain(..count) {
                change.apply(&mut inode.synced, &mut self.kept);
            }
            return;
        }
        let (done, left) = std::mem::take(&mut self.unsynced_names)
            .into_iter()
            .partition(|(order, path, _)| *order < sync.before && path.parent() == Some(&sync.path));
        self.unsynced_names = left;
        let done: Vec<(u64, PathBuf, Option<usize>)> = done;
        for (_, path, inode) in done {
            match inode {
                Some(inode) => drop(self.synced_names.insert(path, inode)),
                None => drop(self.synced_names.remove(&path)),
            }
        }
    }

    /// Makes the folder what is on the disk.
    fn write(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.root)? {
            let path = entry?.path();
            match path.is_dir() {
                true => std::fs::remove_dir_all(path)?,
                false => std::fs::remove_file(path)?,
            }
        }
        // A folder comes before what is in it.
        for (path, inode) in &self.synced_names {
            let inode = &self.inodes[*inode];
            if !path.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match inode.is_folder {
                true => std::fs::create_dir(path)?,
                false => std::fs::write(path, &inode.synced)?,
            }
            set_mode(path, inode.mode)?;
        }
        Ok(())
    }
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>, kept: &mut BTreeSet<Vec<u8>>) {
        match self {
            Self::Size(size) => bytes.resize(size, 0),
            Self::Write(offset, written) => {
                kept.extend(ids(&written).map(<[u8]>::to_vec));
                let end = offset + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[offset..end].copy_from_slice(&written);
            }
        }
    }
}

/// What the first file of a call is: `3<\x2f…>`.
fn place(arguments: &str) -> Option<PathBuf> {
    let (_, rest) = arguments.split_once('<')?;
    let (path, _) = rest.split_once('>')?;
    Some(PathBuf::from(String::from_utf8(unescaped(path)).ok()?))
}

/// What stands in quotes, in its order.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    arguments.split('"').skip(1).step_by(2).map(unescaped).collect()
}

fn path(arguments: &str, number: usize) -> PathBuf {
    let bytes = strings(arguments).into_iter().nth(number).unwrap_or_default();
    PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last number of a call.
fn last(arguments: &str) -> usize {
    let number = arguments.rsplit(", ").next().unwrap_or_default();
    number.trim().parse().unwrap_or_default()
}

/// `\x41\x42` to `AB`.
fn unescaped(text: &str) -> Vec<u8> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.wrapping_sub(b'a').wrapping_add(10),
    };
    let bytes = text.as_bytes().chunks_exact(4);
    bytes.map(|escape| digit(escape[2]) << 4 | digit(escape[3])).collect()
}

/// Whatever is called as messages are.
fn ids(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let begin = find(rest, b"msg_")?;
        let end = rest[begin + 4..].iter().position(|byte| !byte.is_ascii_alphanumeric());
        let end = end.map_or(rest.len(), |end| begin + 4 + end);
        let id = &rest[begin..end];
        rest = &rest[end..];
        Some(id)
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|found| found == what)
}
