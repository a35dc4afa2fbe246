//! The hash that spreads keys: that of Redis Cluster, CRC-16/XMODEM, which many languages have at hand.

use crc::{CRC_16_XMODEM, Crc, Table};

const XMODEM: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&CRC_16_XMODEM);

/// CRC-16/XMODEM of these bytes.
pub fn crc16(bytes: &[u8]) -> u16 {
    XMODEM.checksum(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_the_hash_of_the_specification() {
        assert_eq!(super::crc16(b"123456789"), 0x31C3);
    }
}
