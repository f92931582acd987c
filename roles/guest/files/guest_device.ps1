# Copyright (c) 2026, acrn.ivshmem contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Installs the virtio-win ivshmem driver unless every ivshmem device works already. The last line is changed=0 or 1.

function Set-Ivshmem([string] $Inf, [bool] $Check) {
    $ErrorActionPreference = 'Stop'
    function Get-Ivshmem { @(Get-PnpDevice -PresentOnly | Where-Object { $_.InstanceId -like 'PCI\VEN_1AF4&DEV_1110*' }) }
    # Without a driver, Windows shows it as "PCI standard RAM Controller", also with status OK: the service tells.
    function Get-Idle { @(Get-Ivshmem | Where-Object { $_.Status -ne 'OK' -or $_.Service -ne 'IVSHMEM' }) }
    function Stop-Ivshmem([string] $Why) { [Console]::Error.WriteLine("acrn.ivshmem: $Why"); exit 1 }

    if ((Get-Ivshmem).Count -eq 0) {
        Stop-Ivshmem 'this guest has no ivshmem device (PCI\VEN_1AF4&DEV_1110): start its VM with the device'
    }
    if ((Get-Idle).Count -eq 0) { 'changed=0'; exit 0 }
    if ($Inf -eq '' -or -not (Test-Path -LiteralPath $Inf)) {
        Stop-Ivshmem "driver file '$Inf' is not on this guest: set guest_windows_inf to the ivshmem.inf of virtio-win"
    }
    if ($Check) { 'changed=1'; exit 0 }
    $output = & pnputil.exe /add-driver $Inf /install
    if (@(0, 259, 3010) -notcontains $LASTEXITCODE) { Stop-Ivshmem "pnputil ended with $LASTEXITCODE`: $output" }
    $restart = $LASTEXITCODE -eq 3010
    foreach ($device in Get-Idle) {
        if (-not $restart) {
            Stop-Ivshmem "$($device.InstanceId) has status $($device.Status) and service '$($device.Service)' after the installation"
        }
    }
    if ($restart) { 'Windows wants a restart before the driver works.' }
    'changed=1'
    exit 0
}
