; The setup program: `python packaging/windows/installer.py` calls makensis with this,
; on Debian and on Windows.
;
; An upgrade never writes over a file. The new program is unpacked beside the old one, is
; tried, and takes its place by renaming, once nobody runs the old one. Whatever fails
; before leaves the old one as it was.
;
; PATH, the scheduled task, the event source and the state folder are the program's own
; business: NSIS cannot hold a text of more than 1,023 characters, and a PATH is longer.

Target ${TARGET} ; amd64-unicode with Debian's NSIS; the official one has x86 only
Unicode true
!if ${COMPRESSOR} == zlib
  SetCompressor zlib
!else
  SetCompressor /SOLID ${COMPRESSOR}
!endif

!include MUI2.nsh
!include FileFunc.nsh
!include LogicLib.nsh
!include TextFunc.nsh
!include WordFunc.nsh
!include x64.nsh
!include WinMessages.nsh

!define NAME "letsencrypt-mdaemon"
!define EXE "${NAME}.exe"
!define PUBLISHER "${NAME} contributors"
!define UNINSTALL_KEY "Software\Microsoft\Windows\CurrentVersion\Uninstall\${NAME}"
!define LOG_DIRECTORY "$WINDIR\Logs" ; only administrators write there
!define LOG "${LOG_DIRECTORY}\${NAME}-setup.log"
!define LINK "$SMPROGRAMS\${NAME} setup.lnk"
!define REMINDER "Nothing renews MDaemon's certificate from now on. If you want MDaemon's \
own script to do it, switch its scheduler on: Security, Security Manager, SSL & TLS, \
Let's Encrypt. A task of that script that setup disabled stays disabled."

; Exit codes. NSIS itself has 1 (cancelled) and 2 (aborted).
!define ANOTHER_SETUP 3
!define NEWER_INSTALLED 4
!define STILL_RUNNING 5
!define WRONG_FOLDER 6
!define NOTHING_CHANGED 7
!define INCOMPLETE 8

Name "${NAME} ${VERSION}"
OutFile "${OUT}"
RequestExecutionLevel admin
ManifestDPIAware true
ShowInstDetails show
ShowUninstDetails show
BrandingText " "
!ifdef SIGN
  !finalize '${SIGN}' = 0
  !uninstfinalize '${SIGN}' = 0
!endif

VIProductVersion "${NUMBERS}"
VIFileVersion "${NUMBERS}"
VIAddVersionKey ProductName "${NAME}"
VIAddVersionKey ProductVersion "${VERSION}"
VIAddVersionKey FileVersion "${VERSION}"
VIAddVersionKey FileDescription "Setup of ${NAME}"
VIAddVersionKey CompanyName "${PUBLISHER}"
VIAddVersionKey LegalCopyright "MIT license"
VIAddVersionKey OriginalFilename "${NAME}-${VERSION}-x64.exe"

!define MUI_ICON "${ICON}"
!define MUI_UNICON "${ICON}"
!define MUI_ABORTWARNING
!define MUI_WELCOMEPAGE_TEXT "This installs ${NAME} for all users of this computer. \
Nothing is downloaded.$\r$\n$\r$\nAn earlier version is replaced. The config file, the \
history, certificates and the scheduled task stay as they are."
!define MUI_PAGE_CUSTOMFUNCTION_PRE SkipIfInstalled
!define MUI_FINISHPAGE_NOAUTOCLOSE ; what was done can be read
!define MUI_FINISHPAGE_RUN
!define MUI_FINISHPAGE_RUN_FUNCTION SetUp
!define MUI_FINISHPAGE_RUN_TEXT "Set up the certificate now, in a Command Prompt"
!define MUI_FINISHPAGE_RUN_NOTCHECKED
!insertmacro MUI_PAGE_WELCOME
!insertmacro MUI_PAGE_DIRECTORY
!insertmacro MUI_PAGE_INSTFILES
!insertmacro MUI_PAGE_FINISH
!insertmacro MUI_UNPAGE_CONFIRM
!insertmacro MUI_UNPAGE_INSTFILES
!insertmacro MUI_LANGUAGE English

Var Installed ; the folder of the version that is there; "" = none
Var Wait      ; seconds to wait for a run to end
Var Output    ; of a program that was run

; Note TEXT: a line in the log, and in the window.
!macro Note TEXT
  Push "${TEXT}"
  !ifdef __UNINSTALL__
    Call un.WriteLog
  !else
    Call WriteLog
  !endif
!macroend
!define Note "!insertmacro Note"

; Stop CODE TEXT: say why, and end with that exit code.
!macro Stop CODE TEXT
  ${Note} "${TEXT}"
  ${Note} "Ended with ${CODE}."
  SetErrorLevel ${CODE}
  MessageBox MB_OK|MB_ICONSTOP "${TEXT}" /SD IDOK
  Quit
!macroend
!define Stop "!insertmacro Stop"

!macro Shared UN
  Function ${UN}WriteLog
    Exch $0
    Push $1
    Push $2
    Push $3
    Push $4
    Push $5
    Push $6
    Push $7
    DetailPrint "$0"
    ${GetTime} "" "L" $1 $2 $3 $4 $5 $6 $7
    CreateDirectory "${LOG_DIRECTORY}"
    ClearErrors
    FileOpen $4 "${LOG}" a
    ${IfNot} ${Errors}
      FileSeek $4 0 END
      FileWriteUTF16LE /BOM $4 "$3-$2-$1 $5:$6:$7  $0$\r$\n"
      FileClose $4
    ${EndIf}
    ClearErrors
    Pop $7
    Pop $6
    Pop $5
    Pop $4
    Pop $3
    Pop $2
    Pop $1
    Pop $0
  FunctionEnd

  Function ${UN}Begin
    SetRegView 64
    SetShellVarContext all
    ; The name is held until this process ends.
    System::Call 'kernel32::CreateMutexW(p 0, i 0, w "Global\${NAME}-setup") p .r1 ?e'
    Pop $0
    ${If} $0 = 183 ; ERROR_ALREADY_EXISTS
      ${Stop} ${ANOTHER_SETUP} "Another setup of ${NAME} is running. Wait until it ends."
    ${EndIf}
    ReadRegStr $Installed HKLM "${UNINSTALL_KEY}" InstallLocation
    StrCpy $Wait 600
    ${GetParameters} $0
    ClearErrors
    ${GetOptions} $0 "/WAIT=" $1
    ${IfNot} ${Errors}
      StrCpy $Wait $1
    ${EndIf}
  FunctionEnd

  ; Wait until nobody runs the program. A run holds its lock as long as its process lives.
  Function ${UN}WaitForRuns
    Push $0
    Push $1
    StrCpy $1 0
    ${Do}
      ${IfNot} ${FileExists} "$INSTDIR\${EXE}"
        ${Break}
      ${EndIf}
      ClearErrors
      FileOpen $0 "$INSTDIR\${EXE}" a ; refused while it runs; writes nothing
      ${IfNot} ${Errors}
        FileClose $0
        ${Break}
      ${EndIf}
      ${If} $1 = 0
        ${Note} "${NAME} is running. Waiting up to $Wait seconds for that run to end."
      ${EndIf}
      ${If} $1 >= $Wait
        ${Note} "It is still running."
        MessageBox MB_RETRYCANCEL|MB_ICONEXCLAMATION "${NAME} is still running." \
          /SD IDCANCEL IDRETRY again
        RMDir /r "$INSTDIR\new"
        ${Stop} ${STILL_RUNNING} "A run of ${NAME} did not end. Nothing was changed. \
Try again later."
        again:
        StrCpy $1 0
      ${EndIf}
      IntOp $1 $1 + 1
      Sleep 1000
    ${Loop}
    ClearErrors
    Pop $1
    Pop $0
  FunctionEnd

  ; Put the old program back, if it was taken away and no new one is there.
  Function ${UN}PutBack
    ${If} ${FileExists} "$INSTDIR\old\${EXE}"
    ${AndIfNot} ${FileExists} "$INSTDIR\${EXE}"
      ${If} ${FileExists} "$INSTDIR\old\_internal\*.*"
        RMDir /r "$INSTDIR\_internal"
        Rename "$INSTDIR\old\_internal" "$INSTDIR\_internal"
      ${EndIf}
      Rename "$INSTDIR\old\${EXE}" "$INSTDIR\${EXE}"
      ${Note} "The former program is back in its place."
    ${EndIf}
    ClearErrors
  FunctionEnd

  ; Take the program away; sets the error flag if somebody uses it after all.
  Function ${UN}TakeAway
    RMDir /r "$INSTDIR\old"
    CreateDirectory "$INSTDIR\old"
    ClearErrors
    ${If} ${FileExists} "$INSTDIR\${EXE}"
      ; From here on nobody can start it.
      Rename "$INSTDIR\${EXE}" "$INSTDIR\old\${EXE}"
    ${EndIf}
    ${IfNot} ${Errors}
    ${AndIf} ${FileExists} "$INSTDIR\_internal\*.*"
      ; Windows refuses this as long as a file in it is open.
      Rename "$INSTDIR\_internal" "$INSTDIR\old\_internal"
    ${EndIf}
    ${If} ${Errors}
      Call ${UN}PutBack
      SetErrors
    ${EndIf}
  FunctionEnd
!macroend
!insertmacro Shared ""
!insertmacro Shared "un."

; Run COMMAND, log what it prints; its exit code is in $0.
!macro Run COMMAND
  nsExec::ExecToStack '${COMMAND}'
  Pop $0
  Pop $Output
  ${TrimNewLines} "$Output" $Output
  ${If} $Output != ""
    ${Note} "$Output"
  ${EndIf}
!macroend
!define Run "!insertmacro Run"

Function .onInit
  Call Begin
  ${IfNot} ${RunningX64}
    ${Stop} ${NOTHING_CHANGED} "${NAME} needs 64-bit Windows."
  ${EndIf}
  ${If} $INSTDIR == ""
    StrCpy $INSTDIR "$PROGRAMFILES64\${NAME}"
    ${If} $Installed != ""
      StrCpy $INSTDIR $Installed
    ${EndIf}
  ${ElseIf} $Installed != ""
  ${AndIf} $INSTDIR != $Installed
    ${Stop} ${WRONG_FOLDER} "${NAME} is installed in $Installed. Remove it first, or \
do not name another folder."
  ${EndIf}
  ReadRegStr $0 HKLM "${UNINSTALL_KEY}" Comparable
  ReadRegStr $1 HKLM "${UNINSTALL_KEY}" DisplayVersion
  ${VersionCompare} "$0" "${COMPARABLE}" $2
  ${If} $0 != ""
  ${AndIf} $2 = 1
    ${Stop} ${NEWER_INSTALLED} "The newer version $1 is installed, and ${VERSION} may not \
understand its files. Nothing was changed. To go back, remove it first."
  ${EndIf}
FunctionEnd

Function SetUp
  Exec '"$WINDIR\System32\cmd.exe" /d /k ""$INSTDIR\${EXE}" setup"'
FunctionEnd

Function SkipIfInstalled
  ${If} $Installed != ""
    Abort
  ${EndIf}
FunctionEnd

Section
  ReadRegStr $1 HKLM "${UNINSTALL_KEY}" DisplayVersion
  ${If} $1 == ""
    ${Note} "Installing ${VERSION} in $INSTDIR."
  ${Else}
    ${Note} "Installing ${VERSION} in $INSTDIR, in place of $1."
  ${EndIf}
  Call PutBack ; what an earlier setup may have left
  RMDir /r "$INSTDIR\new"
  ClearErrors
  SetOutPath "$INSTDIR\new"
  File /r "${FOLDER}/*"
  ; The folder that this setup is in cannot be renamed.
  SetOutPath "$INSTDIR"
  ${If} ${Errors}
    ${Note} "A file could not be written."
  ${EndIf}
  ${GetSize} "$INSTDIR\new" "/S=0B" $1 $2 $3
  ${If} $1 != ${BYTES}
  ${OrIf} $2 != ${FILES}
    RMDir /r "$INSTDIR\new"
    ${Stop} ${NOTHING_CHANGED} "Could not write all files to $INSTDIR. Nothing was \
changed. Make room on that disk, and try again."
  ${EndIf}
  ${Run} '"$INSTDIR\new\${EXE}" --version'
  ${If} $0 != 0
    RMDir /r "$INSTDIR\new"
    ${Stop} ${NOTHING_CHANGED} "The new program does not run on this computer ($0). \
Nothing was changed."
  ${EndIf}

  try:
  Call WaitForRuns
  Call TakeAway
  IfErrors 0 taken
  ; A run began just now.
  Sleep 1000
  Goto try
  taken:
  Rename "$INSTDIR\new\_internal" "$INSTDIR\_internal"
  ${IfNot} ${Errors}
    Rename "$INSTDIR\new\${EXE}" "$INSTDIR\${EXE}"
  ${EndIf}
  ${If} ${Errors}
    Call PutBack
    RMDir /r "$INSTDIR\new"
    ${Stop} ${NOTHING_CHANGED} "Could not put the new program in its place. Nothing was \
changed. Close what has files in $INSTDIR open, and try again."
  ${EndIf}
  RMDir /r "$INSTDIR\new"
  RMDir /r "$INSTDIR\old"

  WriteUninstaller "$INSTDIR\uninstall.exe"
  WriteRegStr HKLM "${UNINSTALL_KEY}" DisplayName "${NAME}"
  WriteRegStr HKLM "${UNINSTALL_KEY}" DisplayVersion "${VERSION}"
  WriteRegStr HKLM "${UNINSTALL_KEY}" Comparable "${COMPARABLE}"
  WriteRegStr HKLM "${UNINSTALL_KEY}" Publisher "${PUBLISHER}"
  WriteRegStr HKLM "${UNINSTALL_KEY}" DisplayIcon "$INSTDIR\${EXE}"
  WriteRegStr HKLM "${UNINSTALL_KEY}" InstallLocation "$INSTDIR"
  WriteRegStr HKLM "${UNINSTALL_KEY}" UninstallString '"$INSTDIR\uninstall.exe"'
  WriteRegStr HKLM "${UNINSTALL_KEY}" QuietUninstallString '"$INSTDIR\uninstall.exe" /S'
  WriteRegDWORD HKLM "${UNINSTALL_KEY}" NoModify 1
  WriteRegDWORD HKLM "${UNINSTALL_KEY}" NoRepair 1
  ${GetSize} "$INSTDIR" "/S=0K" $1 $2 $3
  WriteRegDWORD HKLM "${UNINSTALL_KEY}" EstimatedSize $1
  CreateShortcut "${LINK}" "$WINDIR\System32\cmd.exe" '/d /k ""$INSTDIR\${EXE}" setup"' \
    "$INSTDIR\${EXE}" 0 SW_SHOWNORMAL "" "Set up the certificate of MDaemon"
  ; "Run as administrator": bit 13 of the link's flags ([MS-SHLLINK], 2.1.1).
  FileOpen $1 "${LINK}" a
  FileSeek $1 21
  FileReadByte $1 $2
  IntOp $2 $2 | 0x20
  FileSeek $1 21
  FileWriteByte $1 $2
  FileClose $1
  ${If} ${Errors}
    ${Note} "Could not write the uninstaller, its entry or the Start menu link."
    StrCpy $3 failed
  ${EndIf}
  ${Run} '"$INSTDIR\${EXE}" add-to-windows'
  SendMessage ${HWND_BROADCAST} ${WM_SETTINGCHANGE} 0 "STR:Environment" /TIMEOUT=5000
  ${If} $0 != 0
  ${OrIf} $3 == failed
    ${Stop} ${INCOMPLETE} "${VERSION} is installed in $INSTDIR, but not everything \
around it could be done. ${LOG} shows what. Try again."
  ${EndIf}
  ${Note} "Installed ${VERSION}."
SectionEnd

Function un.onInit
  Call un.Begin
FunctionEnd

Section Uninstall
  ReadRegStr $1 HKLM "${UNINSTALL_KEY}" DisplayVersion
  ${Note} "Removing $1 from $INSTDIR."
  StrCpy $2 ""
  ${GetParameters} $0
  ClearErrors
  ${GetOptions} $0 "/DELETESTATE" $1
  ${If} ${Errors}
    MessageBox MB_YESNO|MB_DEFBUTTON2|MB_ICONQUESTION "Also delete the history and the \
key of the account at the CA? If you may install ${NAME} again, keep them.$\r$\n$\r$\n\
Certificates, the config file and logs stay in any case." /SD IDNO IDNO kept
  ${EndIf}
  StrCpy $2 " --delete-state"
  kept:
  Call un.PutBack
  Call un.WaitForRuns
  ${If} ${FileExists} "$INSTDIR\${EXE}"
    ask:
    ${Run} '"$INSTDIR\${EXE}" remove-from-windows$2'
    ${If} $0 != 0
      MessageBox MB_RETRYCANCEL|MB_ICONEXCLAMATION "$Output" /SD IDCANCEL IDRETRY ask
      ${Stop} ${NOTHING_CHANGED} "Could not remove what belongs to ${NAME} from Windows: \
${LOG} shows what. The program is still there."
    ${EndIf}
  ${Else}
    ${Note} "The program is missing. Its scheduled task and its entry in PATH may still \
be there."
  ${EndIf}
  try:
  Call un.WaitForRuns
  Call un.TakeAway
  IfErrors 0 taken
  Sleep 1000
  Goto try
  taken:
  RMDir /r "$INSTDIR\old"
  RMDir /r "$INSTDIR\new"
  Delete "$INSTDIR\uninstall.exe"
  Delete "${LINK}"
  RMDir "$INSTDIR" ; if nothing of others is in it
  DeleteRegKey HKLM "${UNINSTALL_KEY}"
  SendMessage ${HWND_BROADCAST} ${WM_SETTINGCHANGE} 0 "STR:Environment" /TIMEOUT=5000
  ${Note} "Removed."
  ${Note} "${REMINDER}"
  MessageBox MB_OK|MB_ICONINFORMATION "${REMINDER}" /SD IDOK
SectionEnd
