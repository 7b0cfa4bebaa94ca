@echo off
rem This file replaces the old scheduled-renew.cmd: same switches, new program.
rem Write settings that the old script did not have into
rem LetsEncrypt\letsencrypt-mdaemon.ini in MDaemon's folder.
rem Leave --scheduled at the end: it says that nobody typed this command.
rem First switch off the scheduler on MDaemon's Let's Encrypt page.
"C:\Program Files\letsencrypt-mdaemon\Scripts\letsencrypt-mdaemon.exe" -AlternateHostNames imap.example.com,webmail.example.com -To "postmaster@example.com" -RemoveOldCertificates -SkipPortCheck --scheduled
exit /b %ERRORLEVEL%
