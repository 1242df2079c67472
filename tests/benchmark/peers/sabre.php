<?php
// sabre/dav over a folder, as its own example server does it. Debian's version is older than today's PHP: no warnings.
error_reporting(0);
require_once 'Sabre/autoload.php';
$tree = new Sabre\DAV\ObjectTree(new Sabre\DAV\FS\Directory($_SERVER['BENCH_ROOT']));
$server = new Sabre\DAV\Server($tree);
$server->setBaseUri('/');
$server->addPlugin(new Sabre\DAV\Locks\Plugin(new Sabre\DAV\Locks\Backend\File($_SERVER['BENCH_LOCKS'])));
$server->exec();
