@echo off
rem In place of the old scheduled-renew.cmd: the same switches, the new program.
rem Settings that the old script did not have stand in LetsEncrypt\letsencrypt-mdaemon.ini.
rem Switch off the scheduler on the Let's Encrypt page of MDaemon first.
"C:\Program Files\letsencrypt-mdaemon\Scripts\letsencrypt-mdaemon.exe" -AlternateHostNames imap.example.com,webmail.example.com -To "postmaster@example.com" -RemoveOldCertificates -SkipPortCheck
exit /b %ERRORLEVEL%
