"""The drive mounted with davfs2: what programs do to files there must be in the store when it is unmounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from davsql.model import LockRequest, LockScope
from davsql.store.store import Store
from tests.clients.davfs2 import mounted, shell
from tests.clients.programs import find_program
from tests.clients.trees import make_odd_tree, tree_in_store, tree_on_disk
from tests.live_server import LiveServer
from tests.store_steps import at, put, read, tree

EXCLUSIVE = LockRequest(LockScope.EXCLUSIVE, is_depth_infinity=False, owner_xml=None, timeout_s=600)

# What runs on the drive runs on a local folder as well; the two must be the same in the end.
WORK = r"""
set -e
cp -r "$SOURCE" tree
diff -r "$SOURCE" tree
mv tree moved
mv moved/files/plain.txt "moved/files/new name é.txt"
mv "moved/files/two words.txt" "moved/files/100%.txt"          # over another file
rm -r "moved/level 0 é%"
mkdir -p a/b/c
rmdir a/b/c
cp moved/big.bin copy.bin
cmp moved/big.bin copy.bin
echo appended >>"moved/files/it's.txt"
sed -i "s/hello/goodbye/" 'moved/files/say "hello".txt'         # a new file, renamed over the old one
printf XYZ | dd of=moved/big.bin bs=1 seek=1000000 conv=notrunc status=none
truncate -s 12345 copy.bin
: >moved/files/CON
touch created
echo new >temporary
mv temporary ./moved/files/-dash
mv moved/files/.hidden a/b/shown
rm moved/empty.txt
"""

# Each in the way of its kind: vim itself, then what Emacs, GNOME's and KDE's editors, and LibreOffice do to files.
EDITING = r"""
set -e
edit() {
    "$VIM_TINY" -u NONE -i NONE -N -e -s -c "set backup backupskip= backupcopy=$1" -c "\$ s/.*/$2/" -c wq "vim $1.txt"
}
for copy in no yes; do
    printf 'first\nsecond\n' >"vim $copy.txt"
    edit $copy third
done
sleep 1.1                                               # for a second after vim's fchmod, davfs2 says "0 bytes"
for copy in no yes; do edit $copy fourth; done
echo old >emacs.txt                                     # the old file is renamed, and a new one written
echo typed >'#emacs.txt#'
mv emacs.txt emacs.txt~
echo new >emacs.txt
rm '#emacs.txt#'
echo old >renamed.txt                                   # written beside it, synced, renamed over it
echo new >.goutputstream-XXXXXX
sync .goutputstream-XXXXXX
mv .goutputstream-XXXXXX renamed.txt
echo 'a longer text' >office.odt                        # a lock file, a copy beside it, then written in place
echo ,user,host >.~lock.office.odt#
cp office.odt lu1234.tmp
echo short >office.odt
rm lu1234.tmp .~lock.office.odt#
echo line >>log.txt                                     # opened and closed for each line
echo line >>log.txt
"""


@pytest.mark.parametrize("use_locks", [True, False], ids=["with locks", "without locks"])
def test_davfs2__leaves_in_the_store_what_it_leaves_on_a_disk(
    server: LiveServer, store: Store, folder: Path, *, use_locks: bool
) -> None:
    source, local = folder / "source", folder / "local"
    make_odd_tree(source)
    local.mkdir()
    shell(local, SOURCE=source).succeed("-c", WORK)
    with mounted(server.url, use_locks=use_locks) as mount:
        shell(mount.point, SOURCE=source).succeed("-c", WORK)
        mount.unmount()
    assert tree_in_store(store) == tree_on_disk(local)
    assert store.stats().locks == 0


@pytest.mark.parametrize("use_locks", [True, False], ids=["with locks", "without locks"])
def test_davfs2__keeps_what_editors_save(server: LiveServer, store: Store, folder: Path, *, use_locks: bool) -> None:
    vim = find_program("vim.tiny", folder).path
    shell(folder, VIM_TINY=vim).succeed("-c", EDITING)
    with mounted(server.url, use_locks=use_locks) as mount:
        shell(mount.point, VIM_TINY=vim).succeed("-c", EDITING)
        mount.unmount()
    saved = tree_in_store(store)
    assert saved == tree_on_disk(folder)
    assert saved["/vim no.txt"] == saved["/vim yes.txt"] == b"first\nfourth\n"
    assert saved["/vim no.txt~"] == saved["/vim yes.txt~"] == b"first\nthird\n"
    assert store.stats().locks == 0


def test_davfs2__umount_uploads_what_was_delayed(server: LiveServer, store: Store) -> None:
    with mounted(server.url, use_locks=True, delay_upload_s=3600) as mount:
        shell(mount.point).succeed("-c", "for n in 1 2 3 4 5; do echo $n >$n.txt; done")
        assert all(content == b"" for content in tree(store).values())
        mount.unmount()
    assert tree(store) == {f"/{number}.txt": f"{number}\n".encode() for number in range(1, 6)}
    assert store.stats().locks == 0


def test_davfs2__df_shows_the_space_of_the_store(server: LiveServer, store: Store) -> None:
    put(store, "/a.bin", bytes(range(256)) * 100_000)
    with mounted(server.url, use_locks=False) as mount:
        line = shell(mount.point).succeed("-c", "df --block-size=1 --output=used,avail . | tail -n 1").out
    used, available = map(int, line.split())
    space = store.space()
    assert used == pytest.approx(space.used_bytes, rel=0.01)
    assert available == pytest.approx(space.available_bytes, rel=0.05)  # others write to this disk, too


def test_davfs2__sees_what_others_change(server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"one", modified_at=1_700_000_000_000_000_000)
    with mounted(server.url, use_locks=False) as mount:
        here = shell(mount.point)
        assert here.succeed("-c", "cat a.txt").out == "one"
        put(store, "/a.txt", b"two", modified_at=1_700_000_000_000_000_000)  # only the entity tag tells them apart
        put(store, "/b.txt", b"new")
        here.succeed("-c", "sleep 1.1")  # davfs2 trusts what it knows for a second
        assert here.succeed("-c", "cat a.txt; ls").out == "twoa.txt\nb.txt\nlost+found\n"


def test_davfs2__does_not_write_over_what_another_has_locked(server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"old")
    lock = store.lock(at("/a.txt"), EXCLUSIVE).lock
    with mounted(server.url, use_locks=True) as mount:
        here = shell(mount.point)
        assert here.run("-c", "echo mine >>a.txt").code != 0
        assert here.run("-c", "rm -f a.txt").code != 0
        store.unlock(at("/a.txt"), lock.token)
        here.succeed("-c", "echo mine >>a.txt")
        mount.unmount()
    assert read(store, "/a.txt") == b"oldmine\n"
